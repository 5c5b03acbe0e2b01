"""Models of other channels and other outputs on the page: their maps are those of Python."""

import io

import cv2
import numpy as np
import pytest
from tests.common.channels import GREY, drawn_samples, with_channels
from tests.conftest import BANDS_BUNDLE, TINY_BUNDLE, VALUES_BUNDLE

import ortcam

# Of masked methods: sums of float32 in another order, as the other tests of the page have it.
CLOSE = 1e-5


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def picture():
    """uint8 RGB [50,70,3]: waves and a bright square."""
    return drawn_samples(ortcam.load(TINY_BUNDLE).bundle.manifest.preprocessing)


def shown(visit, path):
    """A saved overlay, RGB."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "page"),
    [
        ("scorecam", {}),
        ("grad-cam", {}),
        ("sscam", {"samples": 2, "seed": 0}),
    ],
)
def test_an_array_of_bands_is_explained_as_in_python(fresh, tmp_path, method, page):
    visit = fresh
    visit.site.add_bundle(f"bands-{method}", BANDS_BUNDLE)
    visit.open(f"?bundle=bands-{method}")
    assert ".npy" in visit.tab.get_attribute("#file", "accept")
    explainer = ortcam.load(BANDS_BUNDLE)
    samples = drawn_samples(explainer.bundle.manifest.preprocessing)
    found = visit.explain(("bands.npy", npy(samples)), method, percent=100, **page)
    options = {"num_samples": 2} if method == "sscam" else {}
    expected = explainer.explain(samples, method=method, **options)
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)
    assert "%" in visit.tab.inner_text("#classes")
    # A value between two colours may go either way, and neighbours in turbo are up to 5 apart; the bands are stretched
    # between percentiles that are sums in float64.
    np.testing.assert_allclose(shown(visit, visit.download("#save-overlay")), expected.overlay(), atol=7)


@pytest.mark.slow
def test_a_picture_is_explained_by_its_grey_as_in_python(fresh, tmp_path):
    folder = with_channels(tmp_path / "grey.ortcam", GREY)
    visit = fresh
    visit.site.add_bundle("grey", folder)
    visit.open("?bundle=grey")
    image = picture()
    content = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    found = visit.explain(("picture.png", content), "scorecam++", percent=100)
    expected = ortcam.load(folder).explain(image, method="scorecam++")
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)
    np.testing.assert_allclose(shown(visit, visit.download("#save-overlay")), expected.overlay(), atol=6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scorecam", "grad-cam", "recipro-cam"])
def test_values_are_shown_as_values_and_explained_as_in_python(fresh, method):
    visit = fresh
    visit.site.add_bundle(f"values-{method}", VALUES_BUNDLE)
    visit.open(f"?bundle=values-{method}")
    image = picture()
    content = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    found = visit.explain(("picture.png", content), method, percent=100)
    expected = ortcam.load(VALUES_BUNDLE).explain(image, method=method)
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)
    said = visit.tab.inner_text("#classes")
    assert "%" not in said
    assert f"{expected.probabilities[0]:.4g}" in said


@pytest.mark.slow
def test_what_a_model_of_bands_does_not_take_is_said(fresh):
    visit = fresh
    visit.site.add_bundle("strict", BANDS_BUNDLE)
    visit.open("?bundle=strict")
    assert "bands.npy has the shape [50, 70, 3]" in visit.refused(("bands.npy", npy(picture())))
    assert "bands.tif is a TIFF file" in visit.refused(("bands.tif", b"II*\0" + bytes(100)))
