"""The page of `ortcam serve` in a real browser: the server explains, and the page shows what it says."""

import io
import shutil
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from tests.common.served import PATIENCE, serving
from tests.conftest import TINY_BUNDLE
from tests.web.conftest import SAMPLES, SHIPPED, WIDE, Visit
from tests.web.test_page_scores import SCORE
from tests.web.test_page_usable import CONTRASTS

import ortcam

FISH, MUG = SAMPLES / "fish.png", SAMPLES / "mug-umbrella.png"
# One graph with the same input, in batches of the server's and of this process.
ALIKE = 1e-5
TITLES = {
    "recipro-cam": "Recipro-CAM",
    "grad-cam++": "Grad-CAM++",
    "layer-cam": "LayerCAM",
    "finer-cam": "Finer-CAM",
    "smooth-grad-cam++": "Smooth Grad-CAM++",
}


class Page:
    """Where the page of a server is."""

    def __init__(self, address):
        self.address = address


@pytest.fixture(scope="module")
def served():
    with serving(SHIPPED) as server:
        yield server


@pytest.fixture(scope="module")
def served_tiny():
    with serving(TINY_BUNDLE) as server:
        yield server


@pytest.fixture
def visitor(browser):
    """Makes tabs on pages of servers; in the end they may complain of nothing that a test did not expect."""
    contexts, visits = [], []

    def visit(server, viewport=WIDE):
        contexts.append(browser.new_context(viewport=viewport))
        visits.append(Visit(contexts[-1].new_page(), Page(f"{server.url}ui/")))
        return visits[-1]

    yield visit
    for context in contexts:
        context.close()
    for visited in visits:
        assert unexpected(visited) == []


def unexpected(visit, status=None):
    """What a tab complained of, and not of answers of this status; it is forgotten.

    Of an answer that is read as a stream Chromium says at times that it was aborted, though it was read to its end.
    """
    complaints = visit.complaints.copy()
    visit.complaints.clear()
    streams = [line for line in complaints if line.startswith("failed:") and ":explain?" in line]
    return [line for line in complaints if line not in streams and (status is None or f" {status} " not in line)]


def abandoned(server):
    """How many explanations ended because nobody waited for them."""
    name = 'ortcam_explanations_stopped_total{reason="gone"}'
    lines = server.service.metrics.page("")[0].decode().splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def wait_until_abandoned(server, before):
    """Wait until the server has given up one more explanation than before, and does nothing more."""
    until = time.monotonic() + PATIENCE
    while abandoned(server) <= before or server.service.lanes.busy:
        assert time.monotonic() < until, "the server still explains what nobody waits for"
        time.sleep(0.05)


@pytest.mark.slow
def test_the_server_explains_and_nothing_is_computed_in_the_browser(visitor, served, explainer):
    visit = visitor(served).open()
    assert visit.tab.inner_text("#promise") == f"Your image is sent to {urlsplit(served.url).netloc}."
    assert not visit.tab.is_visible("#live")  # frames of a camera are never sent
    assert "on this server" in visit.tab.inner_text("#engine")
    found = visit.explain(FISH, "grad-cam")
    expected = explainer.explain(FISH, method="grad-cam")
    np.testing.assert_allclose(found, expected.maps[0], atol=ALIKE)
    manifest = visit.manifest()
    assert manifest["targets"][0]["index"] == expected.targets[0]
    assert manifest["targets"][0]["probability"] == pytest.approx(float(expected.probabilities[0]), abs=1e-6)
    asked = [urlsplit(address) for address in visit.requests if not address.startswith("blob:")]
    assert {address.netloc for address in asked} == {urlsplit(served.url).netloc}
    assert not [address.path for address in asked if "wasm" in address.path or address.path.endswith((".onnx", ".bin"))]


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "page", "python"),
    [
        ("scorecam", {}, {}),
        ("scorecam++", {"gate": "sigmoid-relu"}, {"gate": "sigmoid-relu"}),
        ("sscam", {"samples": 3, "seed": 5}, {"num_samples": 3, "seed": 5}),
        ("iscam", {"samples": 2}, {"num_samples": 2}),
        ("recipro-cam", {}, {}),
        ("grad-cam++", {}, {}),
        ("layer-cam", {}, {}),
        ("finer-cam", {}, {}),
        ("smooth-grad-cam++", {"samples": 2, "seed": 3}, {"num_samples": 2, "seed": 3}),
    ],
)
def test_the_maps_and_settings_are_pythons(visitor, served_tiny, method, page, python):
    visit = visitor(served_tiny).open()
    found = visit.explain(MUG, method, percent=100, **page)
    explainer = ortcam.load(TINY_BUNDLE)
    expected = explainer.explain(MUG, method=method, **python)
    np.testing.assert_allclose(found, expected.maps[0], atol=ALIKE)
    manifest = visit.manifest()
    assert manifest["options"] == expected.options
    assert manifest["bundle"]["sha256"] == explainer.bundle.sha256
    assert manifest["image"]["path"] == MUG.name
    assert manifest["rendering"]["colormap"] == "turbo"
    masked = expected.stats.passes > 0 and method != "smooth-grad-cam++"
    assert visit.tab.inner_text("#passes").startswith("exact" if masked else TITLES[method])


@pytest.mark.slow
@pytest.mark.parametrize(("score", "method"), [("dog - 0.5*cat", "grad-cam"), ("logit", "scorecam")])
def test_a_score_is_sent_and_explained_there(visitor, served_tiny, score, method):
    visit = visitor(served_tiny).open()
    visit.explain(MUG, method, percent=100)
    visit.tab.evaluate(SCORE, score)
    visit.wait_until("explained")
    visit.wait("explained")
    found, manifest = np.load(visit.download("#save-map")), visit.manifest()
    expected = ortcam.load(TINY_BUNDLE).explain(MUG, method=method, score=score)
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found, expected.maps[0], atol=ALIKE)
    assert manifest["score"] == {"score": score}  # as the server answers
    assert manifest["targets"][0]["index"] == expected.targets[0]
    visit.tab.evaluate(SCORE, "dog - nobody")
    visit.tab.wait_for_selector("#error:not([hidden])")
    assert "nobody" in visit.error
    visit.complaints.clear()  # Chromium notes the answer 422


@pytest.mark.long
def test_a_budget_and_a_tolerance_reach_the_server(visitor, served_tiny):
    visit = visitor(served_tiny).open()
    visit.explain(MUG, "scorecam", percent=50)
    manifest = visit.manifest()
    assert manifest["limits"]["budget"] == pytest.approx(0.5)
    assert manifest["stats"]["scored_channels"] == np.ceil(0.5 * manifest["stats"]["live_channels"])
    assert visit.tab.inner_text("#passes").startswith("error not known yet")
    visit.explain_again("scorecam", until="0.1")
    manifest = visit.manifest()
    assert manifest["limits"]["tolerance"] == pytest.approx(0.1)
    assert manifest["targets"][0]["estimated_error"] <= 0.1


PREVIEWS = """() => {
  window.seen = [];
  document.addEventListener("ortcam-preview", ({ detail }) => {
    window.seen.push({ passes: detail.passes, total: detail.total, error: detail.error, map: detail.map !== null });
    document.body.dataset.stoppable = detail.passes > 0;
  });
}"""


@pytest.mark.long
def test_maps_come_on_the_way_and_stop_keeps_the_last_and_ends_the_work(visitor, served):
    visit = visitor(served).open()
    before = abandoned(served)
    visit.tab.evaluate(PREVIEWS)
    visit.set_options("scorecam", percent=100)
    visit.choose(FISH)
    visit.wait_until("stoppable")
    visit.tab.click("#stop")
    visit.wait("explained")
    seen = visit.tab.evaluate("seen")
    assert [item["passes"] for item in seen] == sorted(item["passes"] for item in seen)
    assert all(item["map"] and item["passes"] <= item["total"] for item in seen)
    stats = visit.manifest()["stats"]
    assert 0 < stats["scored_channels"] < stats["live_channels"]
    assert stats["passes"] == seen[-1]["passes"]
    wait_until_abandoned(served, before)
    assert visit.tab.is_visible("#refine")


@pytest.mark.long
def test_a_closed_tab_ends_the_work(visitor, served, browser):
    context = browser.new_context()
    visit = Visit(context.new_page(), Page(f"{served.url}ui/")).open()
    before = abandoned(served)
    visit.tab.evaluate(PREVIEWS)
    visit.set_options("scorecam", percent=100)
    visit.choose(FISH)
    visit.wait_until("stoppable")
    context.close()
    wait_until_abandoned(served, before)


@pytest.mark.long
def test_another_model_is_chosen_and_explains_the_same_image(visitor, tiny_bundle):
    with serving(SHIPPED, tiny_bundle) as server:
        visit = visitor(server).open()
        visit.explain(FISH, "grad-cam")
        assert visit.tab.locator("#bundle option").all_inner_texts() == ["shapes", "tiny"]
        visit.expect_explanation()
        visit.tab.select_option("#bundle", "tiny")
        visit.wait_until("explained")
        assert "6 classes, sees 48 × 32 pixels" in visit.tab.inner_text("#engine")
        found = visit.explain_again("grad-cam", target=3)
        expected = ortcam.load(tiny_bundle).explain(FISH, method="grad-cam", target=3)
        np.testing.assert_allclose(found, expected.maps[0], atol=ALIKE)
        visit.open("?bundle=models/tiny")  # an address that names a model
        np.testing.assert_array_equal(visit.explain(FISH, "grad-cam").shape, (32, 48))
    # The server has ended: the page says so, and what is shown stays.
    visit.tab.select_option("#method", "layer-cam")
    visit.tab.wait_for_selector("#error:not([hidden])")
    assert "The server does not answer" in visit.error
    visit.complaints.clear()


@pytest.mark.long
def test_a_token_is_asked_for_and_kept_for_the_tab(visitor):
    with serving(SHIPPED, token="a-secret") as server:
        visit = visitor(server).open(state="locked")
        assert not visit.tab.is_visible("#drop")
        assert not [address for address in visit.requests if "/models/" in address or "/samples/" in address]
        assert visit.tab.evaluate("document.activeElement.id") == "token"
        visit.tab.keyboard.type("wrong")
        visit.tab.keyboard.press("Enter")
        visit.tab.wait_for_selector("#error:not([hidden])")
        assert visit.error == "This is not the token of this server."
        for scheme in ("dark", "light"):
            visit.tab.emulate_media(color_scheme=scheme)
            assert visit.tab.evaluate(CONTRASTS) == []
        visit.tab.fill("#token", "a-secret")
        visit.tab.click("#token-form button")
        visit.wait("empty")
        assert visit.explain(FISH, "grad-cam").max() == 1
        assert visit.explain_again("scorecam", percent=1).max() == 1
        visit.open()
        assert all("a-secret" not in address for address in visit.requests)
        unknown = visitor(server).open(state="locked")
        assert unexpected(visit, status=401) == []
        assert unexpected(unknown, status=401) == []


def _png(width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, "PNG")
    return file.getvalue()


@pytest.mark.long
def test_what_the_server_refuses_is_said_and_the_page_goes_on(visitor):
    with serving(SHIPPED, limits={"pixels": 100_000, "body_bytes": 200_000, "passes": 400}) as server:
        visit = visitor(server).open()
        visit.explain(FISH, "grad-cam")
        assert "400 x 251 = 100400 pixels, and this server takes at most 100000" in visit.refused(
            ("large.png", _png(400, 251))
        )
        assert "takes at most 200000" in visit.refused(("long.jpg", bytes(200_001)))
        assert "is not an image" in visit.refused(("notes.jpg", b"Hello, this is text.\n"))
        assert "fish" in visit.tab.inner_text("#classes li >> nth=0")  # the image that was there stays
        visit.set_options("sscam", percent=100, samples=10)
        visit.tab.wait_for_selector("#error:not([hidden])")
        assert "this server makes at most 400 per request" in visit.error  # in the server's words
        visit.expect_explanation()
        visit.tab.evaluate("document.getElementById('advanced').open = true")
        visit.tab.select_option("#until", "0.1")  # a map that may end early is held to what the server makes
        visit.wait_until("explained")
        assert visit.manifest()["limits"]["budget"] == 40
        assert visit.explain(FISH, "grad-cam").max() == 1
        assert unexpected(visit, status=422) == []


@pytest.mark.long
def test_a_map_that_the_server_had_no_time_for_says_so(visitor):
    with serving(SHIPPED, limits={"seconds": 3}) as server:
        visit = visitor(server).open()
        visit.explain(FISH, "sscam", percent=100, samples=10)
        said = visit.tab.inner_text("#passes")
        assert "stopped by the server (its limit is 3 s)" in said
        assert said.startswith(("estimated error", "error not known yet"))
        assert visit.tab.inner_text("#refine") == "Make it exact"


@pytest.mark.long
def test_a_model_that_was_replaced_is_noticed(visitor, tmp_path, tiny_bundle):
    folder = shutil.copytree(SHIPPED, tmp_path / "model.ortcam")
    with serving(folder) as server:
        visit = visitor(server).open()
        visit.explain(FISH, "grad-cam")
        shutil.rmtree(folder)
        shutil.copytree(tiny_bundle, folder)
        server.run(server.service.models.reload())
        visit.set_options("layer-cam")
        visit.tab.wait_for_selector("#error:not([hidden])")
        assert "another version of this model" in visit.error
        visit.open()
        assert "6 classes" in visit.tab.inner_text("#engine")
        assert visit.explain(FISH, "grad-cam").shape == (32, 48)


@pytest.mark.long
def test_on_a_phone_nothing_lies_beside_the_screen(visitor, served):
    visit = visitor(served, {"width": 360, "height": 640}).open()
    widest = "document.documentElement.scrollWidth"
    assert visit.tab.evaluate(widest) <= 360
    visit.explain(FISH, "grad-cam")
    visit.tab.evaluate("document.getElementById('promise').textContent = `Your image is sent to ${'long'.repeat(30)}.`")
    assert visit.tab.evaluate(widest) <= 360
    assert visit.tab.evaluate("document.getElementById('choose').getBoundingClientRect().bottom <= innerHeight")
