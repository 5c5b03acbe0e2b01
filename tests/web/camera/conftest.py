"""A Chromium whose camera is drawn, by itself or by a test: it needs no device."""

import pytest
from tests.web.conftest import WIDE, Visit

CAMERAS = 2
FAKE = (
    "--use-fake-ui-for-media-stream",
    f"--use-fake-device-for-media-stream=device-count={CAMERAS}",
)
# Notes what is asked of the cameras and what they gave. A test may hide the page, refuse a camera, and draw frames.
WATCHED = """
  window.cameras = { asked: [], tracks: [], refusal: null, hidden: false, wanted: Infinity, frames: [], shown: [] };
  cameras.draw = null; // gives what is taken for a frame, each time that one is wanted
  const own = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  if (own) navigator.mediaDevices.getUserMedia = async (wanted) => {
    cameras.asked.push(wanted);
    if (cameras.refusal !== null) throw new DOMException("", cameras.refusal);
    const stream = await own(wanted);
    cameras.tracks.push(...stream.getTracks());
    return stream;
  };
  const read = createImageBitmap;
  window.createImageBitmap = (source, ...rest) =>
    read(source instanceof HTMLVideoElement && cameras.draw !== null ? cameras.draw() : source, ...rest);
  Object.defineProperty(document, "hidden", { get: () => cameras.hidden });
  document.addEventListener("ortcam-frame", ({ detail }) => {
    const { target, error, passes, warm, perSecond, map, picture } = detail;
    cameras.frames.push({ target, error, passes, warm, perSecond });
    const { width, height, display } = picture;
    const canvas = new OffscreenCanvas(width, height); // the page closes what it has shown
    canvas.getContext("2d").drawImage(display, 0, 0);
    cameras.shown.push({ map, canvas });
    document.body.dataset.seen = cameras.frames.length >= cameras.wanted; // no property can be waited for: see SET
  });
"""
FORGET = """() => {
  for (const list of ["asked", "tracks", "frames", "shown"]) cameras[list].length = 0;
  Object.assign(cameras, { refusal: null, hidden: false, draw: null });
}"""


@pytest.fixture(scope="session")
def camera_browser(playwright, chromium):
    running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", *FAKE])
    yield running
    running.close()


class CameraVisit(Visit):
    """A tab on the page, with the camera that it may use."""

    def start(self):
        """Ask for the camera, and wait for its first map."""
        self.tab.click("#live")
        self.wait("live")

    def stop(self):
        """Stop the camera, and wait for the map of its last frame."""
        self.tab.click("#live")
        self.wait("explained")

    def wait_for_frames(self, count=1):
        """Wait until so many more frames have been shown."""
        seen = self.cameras("frames.length")
        wanted = "(n) => { cameras.wanted = n; document.body.dataset.seen = false; }"
        self.tab.evaluate(wanted, seen + count)
        self.wait_until("seen")

    def cameras(self, what):
        """What was noted of the cameras."""
        return self.tab.evaluate(f"cameras.{what}")

    @property
    def are_off(self):
        """Whether every camera that was given is off, and shown no more."""
        off = self.tab.evaluate("cameras.tracks.map((track) => track.readyState)")
        return set(off) == {"ended"} and self.tab.evaluate("document.getElementById('video').srcObject === null")


@pytest.fixture(scope="session")
def tabs(camera_browser, site, tiny_bundle):
    """Opens a tab on the page with a bundle, once."""
    site.add_bundle("tiny-camera", tiny_bundle)
    contexts, opened = [], {}

    def tab(query):
        if query not in opened:
            contexts.append(camera_browser.new_context(viewport=WIDE, permissions=["camera"]))
            contexts[-1].add_init_script(WATCHED)
            opened[query] = CameraVisit(contexts[-1].new_page(), site).open(query)
        return opened[query]

    yield tab
    for context in contexts:
        context.close()


@pytest.fixture
def camera(request, tabs):
    """A tab on the page, with the tiny classifier or with that of the parameter, which tests take turns with.

    Its camera is off, as a test may leave it. It may complain of nothing.
    """
    visit = tabs(getattr(request, "param", "?bundle=tiny-camera"))
    if visit.tab.inner_text("#live") == "Stop the camera":
        visit.stop()
    visit.tab.evaluate(FORGET)
    yield visit
    complaints = visit.complaints.copy()
    visit.complaints.clear()
    assert complaints == []
