"""The camera on the page, as Chromium draws one: off until it is asked for, and each frame with its own map."""

import base64
from urllib.parse import urlsplit

import numpy as np
import pytest
from tests.web.conftest import SAMPLES

import ortcam

FISH = SAMPLES / "fish.png"
DRAWING = SAMPLES / "mug-umbrella.png"
CLOSE = 1e-4
SHIPPED_MODEL = pytest.mark.parametrize("camera", [""], indirect=True, ids=["shapes"])
# Frames that were shown as PNG, and their maps as they are.
SHOWN = """async (count) => Promise.all(cameras.shown.slice(-count).map(async ({ map, canvas }) => {
  const text = async (blob) => {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  };
  const { data, height, width } = map;
  return [await text(await canvas.convertToBlob({ type: "image/png" })), await text(new Blob([data])), [height, width]];
}))"""

# A slow pan over a drawing, one pixel a frame from when a test lets it move: however long a frame takes, no cut.
PAN = """async (file) => {
  const image = await createImageBitmap(new Blob([Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0))]));
  const canvas = new OffscreenCanvas(image.width - 24, image.height);
  let left = 0;
  cameras.moves = false;
  cameras.draw = () => {
    canvas.getContext("2d").drawImage(image, -left, 0);
    if (cameras.moves) left += 1;
    return canvas;
  };
}"""


def last_frames(visit, count):
    """The frames that were shown last, as files, and their maps: float32 [H,W] each."""
    return [
        (base64.b64decode(picture), np.frombuffer(base64.b64decode(values), np.float32).reshape(shape))
        for picture, values, shape in visit.tab.evaluate(SHOWN, count)
    ]


@pytest.mark.slow
@SHIPPED_MODEL
def test_the_camera_is_off_until_it_is_asked_for_and_its_frames_stay_here(camera, explainer):
    visit = camera
    assert visit.cameras("asked.length") == 0
    assert visit.tab.inner_text("#live") == "Use the camera"
    sent = []
    visit.tab.on("request", lambda request: sent.append(request))  # noqa: PLW0108 - it must be a function of Python
    visit.start()
    assert visit.tab.inner_text("#promise") == "What the camera sees stays on this device."
    visit.wait_for_frames(2)
    assert visit.cameras("frames.at(-1).perSecond") > 0
    assert "maps per second" in visit.tab.inner_text("#passes")
    visit.stop()
    assert visit.are_off
    assert visit.tab.inner_text("#promise") == "Your image stays on this device."
    assert {urlsplit(request.url).netloc for request in sent} <= {urlsplit(visit.site.address).netloc}
    assert [request for request in sent if request.method != "GET"] == []
    # What stays is the last frame, an image like any other, with the map that it had.
    ((frame, found),) = last_frames(visit, 1)
    expected = explainer.explain(frame, method="grad-cam")
    np.testing.assert_allclose(found, expected.maps[0], atol=1e-4)
    assert visit.cameras("frames.at(-1).target") == expected.targets[0]
    np.testing.assert_array_equal(np.load(visit.download("#save-map")), found)
    assert visit.manifest()["image"]["path"] == "camera.png"


@pytest.mark.long
def test_a_hidden_page_has_no_camera(camera):
    visit = camera
    visit.start()
    visit.tab.evaluate("cameras.hidden = true; document.dispatchEvent(new Event('visibilitychange'))")
    visit.wait("ready")
    assert visit.are_off
    assert visit.tab.inner_text("#status") == "The camera was stopped because the page was hidden."
    visit.tab.evaluate("cameras.hidden = false; document.dispatchEvent(new Event('visibilitychange'))")
    assert visit.cameras("asked.length") == 1  # and it stays off
    visit.start()  # until it is asked for again
    assert not visit.are_off


@pytest.mark.long
def test_a_page_without_a_camera_says_why_and_keeps_its_image(camera):
    visit = camera
    visit.explain(FISH, "grad-cam")
    said = visit.tab.inner_text("#status")
    visit.tab.evaluate("cameras.refusal = 'NotReadableError'")
    visit.tab.click("#live")
    visit.tab.wait_for_selector("#error:not([hidden])")
    assert visit.error == "The camera is busy: close the other program that uses it, and try again."
    visit.wait("explained")
    assert visit.tab.inner_text("#status") == said
    visit.tab.evaluate("cameras.refusal = null")
    visit.start()
    assert not visit.tab.is_visible("#error")


@pytest.mark.long
def test_a_camera_that_is_taken_away_leaves_its_last_frame(camera):
    visit = camera
    visit.start()
    visit.tab.evaluate("cameras.tracks[0].dispatchEvent(new Event('ended'))")
    visit.tab.wait_for_selector("#error:not([hidden])")
    assert visit.error == "The camera was disconnected or taken away."
    visit.wait("ready")
    assert visit.are_off
    visit.tab.click("#refine")
    visit.wait("explained")


@pytest.mark.long
def test_a_class_that_is_chosen_is_explained_until_the_likeliest_is_followed_again(camera, tiny_bundle):
    visit, explainer = camera, ortcam.load(tiny_bundle)
    visit.start()
    visit.wait_for_frames()
    likeliest = visit.cameras("frames.at(-1).target")
    other = (likeliest + 1) % len(explainer.labels)
    visit.tab.check(f"#classes input[value='{other}']", force=True)
    visit.wait_for_frames(2)
    assert visit.cameras("frames.at(-1).target") == other
    assert not visit.tab.is_checked("#follow")
    visit.tab.check("#follow")
    visit.wait_for_frames(2)
    visit.stop()  # or another frame might come between the two that are compared
    ((frame, _),) = last_frames(visit, 1)
    assert visit.cameras("frames.at(-1).target") == int(np.argmax(explainer.predict(frame)))


@SHIPPED_MODEL
@pytest.mark.long
def test_maps_of_masks_come_within_their_time(camera, explainer):
    visit = camera
    visit.tab.evaluate("document.getElementById('advanced').open = true")
    visit.tab.select_option("#method", "scorecam")
    assert visit.tab.is_visible("#pace-field")
    visit.tab.select_option("#pace", "250")
    visit.start()
    visit.wait_for_frames(2)
    passes = visit.cameras("frames.at(-1).passes")
    assert 0 < passes < 0.5 * explainer.bundle.manifest.cut.channels  # 250 ms are fewer on any processor
    assert f"{passes} of" in visit.tab.inner_text("#passes")
    visit.tab.select_option("#method", "recipro-cam")
    assert not visit.tab.is_visible("#pace-field")
    visit.wait_for_frames(2)
    assert visit.cameras("frames.at(-1).passes") == 0


@pytest.mark.long
def test_a_score_of_frames_is_explained_as_in_python(camera, tiny_bundle):
    visit, score = camera, "dog - 0.5*cat"
    visit.set_options("grad-cam")
    visit.start()
    visit.tab.fill("#score", score)
    visit.tab.locator("#score").blur()
    visit.wait_for_frames(3)  # the one under way may be of a class
    visit.stop()
    assert visit.cameras("frames.at(-1).target") == -1
    ((frame, found),) = last_frames(visit, 1)
    expected = ortcam.load(tiny_bundle).explain(frame, method="grad-cam", score=score)
    np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)
    visit.tab.fill("#score", "")  # other tests have this tab, too
    visit.tab.locator("#score").blur()


@SHIPPED_MODEL
@pytest.mark.long
def test_a_frame_starts_from_the_one_before_as_in_python(camera, explainer):
    visit = camera
    visit.set_options("scorecam", percent=6)
    # All the time that it takes: what is scored then follows from the budget alone.
    visit.tab.evaluate("document.getElementById('pace').options[0].value = 1e7; pace.selectedIndex = 0")
    visit.tab.evaluate(PAN, base64.b64encode(DRAWING.read_bytes()).decode())
    visit.start()
    likeliest = visit.cameras("frames.at(-1).target")
    target = int(likeliest == 0)  # a class that no frame was explained for yet
    visit.tab.evaluate(f"cameras.moves = true; document.querySelector('#classes input[value=\"{target}\"]').click()")
    visit.wait_for_frames(6)
    visit.stop()
    told = visit.cameras("frames")
    first = next(i for i, frame in enumerate(told) if frame["target"] == target)
    assert {frame["target"] for frame in told[:first]} == {likeliest}
    told, shown = told[first:], last_frames(visit, len(told) - first)
    assert {frame["target"] for frame in told} == {target}
    assert [frame["warm"] for frame in told] == [False] + [True] * (len(told) - 1)
    stream = explainer.explain_stream(
        (picture for picture, _ in shown), method="scorecam", budget=0.06, target=target, batch_size=8
    )
    for (_, found), frame, expected in zip(shown, told, stream, strict=True):
        assert frame["passes"] == expected.stats.passes
        np.testing.assert_allclose(found, expected.maps[0], atol=CLOSE)


@pytest.mark.long
def test_another_camera_can_be_chosen(camera):
    visit = camera
    assert not visit.tab.is_visible("#cameras")
    visit.start()
    visit.tab.wait_for_selector("#cameras")
    first, second = visit.tab.evaluate("[...document.getElementById('cameras').options].map(({ value }) => value)")
    assert visit.tab.input_value("#cameras") == first
    visit.tab.select_option("#cameras", second)
    visit.tab.wait_for_selector("html:not([data-state=live])", state="attached")
    visit.wait("live")
    assert visit.cameras("asked.at(-1)")["video"]["deviceId"] == {"exact": second}
    assert visit.tab.input_value("#cameras") == second
    assert visit.cameras("tracks.map((track) => track.readyState)") == ["ended", "live"]
    visit.stop()
    assert not visit.tab.is_visible("#cameras")


@pytest.mark.long
def test_an_image_takes_the_place_of_the_camera(camera):
    visit = camera
    visit.start()
    visit.choose(FISH)
    visit.wait("explained")
    assert visit.are_off
    assert visit.manifest()["image"]["path"] == FISH.name
