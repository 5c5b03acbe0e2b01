"""Scores on the page: what the field takes gives the maps and the sentences of Python."""

import json

import cv2
import numpy as np
import pytest
from tests.common.channels import drawn_samples
from tests.conftest import TENSOR_BUNDLE, TINY_BUNDLE, VALUES_BUNDLE
from tests.web.conftest import WIDE, Visit

import ortcam

# Of masked methods: sums of float32 in another order, as the other tests of the page have it; of gradients, too.
CLOSE = 1e-4
more = pytest.mark.slow

SCORE = """(score) => {
  const field = document.getElementById("score");
  field.value = score;
  const { dataset } = document.body;
  dataset.explained = false;
  document.addEventListener("ortcam-explained", () => (dataset.explained = true), { once: true });
  field.dispatchEvent(new Event("change", { bubbles: true }));
}"""


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def picture():
    """uint8 RGB [50,70,3]: waves and a bright square."""
    return drawn_samples(ortcam.load(TINY_BUNDLE).bundle.manifest.preprocessing)


def map_of(visit, score):
    """The map after a score was entered."""
    visit.tab.evaluate(SCORE, score)
    visit.wait_until("explained")
    visit.wait("explained")
    return np.load(visit.download("#save-map"))


def sentence_on(visit, score):
    """What the page says to a score."""
    visit.tab.evaluate(SCORE, score)
    visit.tab.wait_for_selector("#error:not([hidden])")
    return visit.error


@pytest.fixture(scope="session")  # slow tests of several modules take turns
def opened(browser, site, tmp_path_factory):
    """Tabs on the page by bundle, each with the picture and one method: they are opened once."""
    contexts, visits = [], {}

    def visit(name, source, method):
        if name not in visits:
            site.add_bundle(f"scores-{name}", source)
            contexts.append(browser.new_context(viewport=WIDE))
            visits[name] = Visit(contexts[-1].new_page(), site).open(f"?bundle=scores-{name}")
            visits[name].explain(("picture.png", png(picture())), method, percent=100)
        found = visits[name]
        found.explain_again(method, percent=100, **({"samples": 2, "seed": 1} if method == "smooth-grad-cam++" else {}))
        return found

    yield visit
    for context in contexts:
        context.close()


LINEAR = "2*dog - 0.5*'white, striped' + 1"
ANY = "entropy - probability:cat + 0.25*logit:index:3"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "score"),
    [
        ("scorecam", LINEAR),
        ("grad-cam", ANY),
        *(
            pytest.param(*case, marks=more)
            for case in (
                ("scorecam", ANY),
                ("scorecam", "probability:dog + probability:cat"),
                ("scorecam++", LINEAR),
                ("grad-cam", LINEAR),
                ("smooth-grad-cam++", ANY),
                ("recipro-cam", LINEAR),
                ("recipro-cam", "entropy"),
            )
        ),
    ],
)
def test_the_map_of_a_score_is_pythons(opened, method, score):
    visit = opened("tiny", TINY_BUNDLE, method)
    found = map_of(visit, score)
    options = {"num_samples": 2, "seed": 1} if method == "smooth-grad-cam++" else {}
    with ortcam.load(TINY_BUNDLE, threads=1) as explainer:
        expected = explainer.explain(picture(), method=method, score=score, **options)
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)
    manifest, summary = visit.manifest(), expected.summary()
    assert manifest["score"] == summary["score"] == score
    assert manifest["options"] == summary["options"]
    assert manifest["targets"][0]["index"] == -1
    assert manifest["targets"][0]["probability"] == pytest.approx(float(expected.probabilities[0]), abs=1e-5)
    assert manifest.get("are_probabilities") == summary.get("are_probabilities")
    assert visit.tab.locator("#classes input:checked").count() == 0
    assert f"it is {expected.probabilities[0]:.4g}"[:8] in visit.tab.inner_text("#passes")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "word"),
    [
        ("scorecam", "logit"),
        *(pytest.param(*case, marks=more) for case in (("grad-cam", "probability"), ("recipro-cam", "logit"))),
    ],
)
def test_a_word_is_a_score_of_the_class_that_is_chosen(opened, method, word):
    visit = opened("tiny", TINY_BUNDLE, method)
    map_of(visit, word)
    for target in (0, 2):
        found = visit.explain_again(method, percent=100, target=target)
        with ortcam.load(TINY_BUNDLE, threads=1) as explainer:
            expected = explainer.explain(picture(), method=method, score=word, target=target)
        np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)
        manifest = visit.manifest()
        assert manifest["targets"][0]["index"] == target
        assert manifest["options"] == expected.options
        assert manifest.get("score") == expected.score


@pytest.mark.slow
def test_a_class_that_is_clicked_takes_the_place_of_an_expression(opened):
    visit = opened("tiny", TINY_BUNDLE, "scorecam")
    map_of(visit, "dog - cat")
    visit.expect_explanation()
    visit.tab.click("#classes li >> nth=1")
    visit.wait_until("explained")
    assert visit.tab.input_value("#score") == ""
    assert visit.manifest()["targets"][0]["index"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "score"),
    [
        ("grad-cam", "2*output[1, 2, 3] - output[0, 1, :]"),
        *(
            pytest.param(*case, marks=more)
            for case in (("scorecam", "output[0, :, :]"), ("recipro-cam", "output[1, 2, 3]"))
        ),
    ],
)
def test_a_part_of_a_tensor_is_explained_as_in_python(opened, method, score):
    visit = opened("tensor", TENSOR_BUNDLE, method)
    assert visit.tab.inner_text("#classes-help") == "This model gives a tensor [2, 4, 6]."
    found = map_of(visit, score)
    with ortcam.load(TENSOR_BUNDLE, threads=1) as explainer:
        expected = explainer.explain(picture(), method=method, score=score)
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)


@pytest.mark.slow
def test_a_model_of_tensors_begins_with_a_score(fresh):
    fresh.site.add_bundle("begins", TENSOR_BUNDLE)
    fresh.open("?bundle=begins")
    assert fresh.tab.input_value("#score") == "output[0, :, :]"
    found = fresh.explain(("picture.png", png(picture())), "grad-cam")
    with ortcam.load(TENSOR_BUNDLE, threads=1) as explainer:
        expected = explainer.explain(picture(), method="grad-cam", score="output[0, :, :]")
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)


@more
def test_outputs_are_called_by_their_names(fresh):
    folder = fresh.site.add_bundle("several", TENSOR_BUNDLE)
    path = folder / "bundle.json"
    parts = [{"name": "scores", "shape": [4, 6]}, {"name": "a - b", "shape": [24]}]
    entries = json.loads(path.read_text("utf-8")) | {"output_shape": [48], "output_parts": parts}
    path.write_text(json.dumps(entries), "utf-8")
    fresh.open("?bundle=several")
    assert fresh.tab.input_value("#score") == "scores[0, :]"
    fresh.explain(("picture.png", png(picture())), "scorecam", percent=100)
    score = "2*scores[1, 2] - 'a - b'[7]"
    found = map_of(fresh, score)
    with ortcam.load(folder, threads=1) as explainer:
        expected = explainer.explain(picture(), method="scorecam", score=score)
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "score"), [pytest.param("scorecam", "age - 0.1*weight", marks=more), ("grad-cam", "weight")]
)
def test_values_of_a_regression_are_explained_as_in_python(opened, method, score):
    visit = opened("values", VALUES_BUNDLE, method)
    found = map_of(visit, score)
    with ortcam.load(VALUES_BUNDLE, threads=1) as explainer:
        expected = explainer.explain(picture(), method=method, score=score)
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "score", "array"),
    [
        ("tensor", TENSOR_BUNDLE, "output[0, :, :]@it.npy", np.arange(24.0).reshape(4, 6) ** 2),
        pytest.param("tiny", TINY_BUNDLE, "cosine:it.npy", np.array([0.3, -1, 0.5, 0, 2, 1]), marks=more),
    ],
)
def test_a_file_that_is_added_is_what_the_score_names(opened, tmp_path, name, source, score, array):
    visit = opened(name, source, "grad-cam")
    visit.tab.fill("#score", "")
    assert not visit.tab.is_visible("#add-score-files")
    visit.tab.fill("#score", score.replace("it.npy", "other.npy"))
    visit.tab.locator("#score").blur()  # or a click on a button would end the typing, and begin an explanation
    assert "no file 'other.npy' was added to the page" in sentence_on(visit, score.replace("it.npy", "other.npy"))
    assert visit.tab.is_visible("#add-score-files")
    np.save(tmp_path / "it.npy", array)
    visit.tab.set_input_files("#score-files", tmp_path / "it.npy")
    assert visit.tab.inner_text("#add-score-files") == "Added: it.npy"
    found = map_of(visit, score)
    asked = ortcam.Score(score, arrays={"it.npy": array})
    with ortcam.load(source, threads=1) as explainer:
        expected = explainer.explain(picture(), method="grad-cam", score=asked)
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)
    assert visit.manifest()["score_arrays"] == expected.summary()["score_arrays"]


@pytest.mark.slow
def test_a_score_that_is_not_accepted_is_said_as_python_says_it(opened):
    visit = opened("tiny", TINY_BUNDLE, "scorecam")
    with ortcam.load(TINY_BUNDLE, threads=1) as explainer, pytest.raises(ortcam.OrtcamError) as refused:
        explainer.explain(picture(), method="scorecam", score="dogg - cat")
    assert sentence_on(visit, "dogg - cat") == str(refused.value)
    assert visit.tab.locator("#score").is_visible()
    map_of(visit, "dog - cat")
    assert not visit.tab.is_visible("#error")
