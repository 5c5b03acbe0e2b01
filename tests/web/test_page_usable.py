"""The page can be used by everyone: by keyboard, by screen reader, in light and dark, on a phone."""

import pytest
from tests.web.conftest import SAMPLES

FISH, MUG = SAMPLES / "fish.png", SAMPLES / "mug-umbrella.png"


@pytest.mark.long
def test_the_keyboard_is_enough(fresh):
    visit = fresh
    visit.tab.on("filechooser", lambda chooser: None)  # from now on, so that the one below is not missed
    visit.open()
    keyboard = visit.tab.keyboard

    def tab_to(selector):
        for _ in range(40):
            keyboard.press("Tab")
            if visit.tab.evaluate("(s) => document.activeElement.matches(s)", selector):
                return
        pytest.fail(f"{selector} is not reached")

    tab_to("#file")
    # Chromium shows the focus of the hidden input as the outline of its label.
    assert visit.tab.evaluate("getComputedStyle(document.getElementById('choose')).outlineStyle") == "solid"
    with visit.tab.expect_file_chooser():
        keyboard.press("Enter")
    visit.set_options("scorecam", until="0.1")
    tab_to("#samples button:last-child")
    keyboard.press("Enter")
    visit.wait("explained")
    tab_to("#classes input")
    keyboard.press("ArrowDown")
    visit.tab.wait_for_selector("#classes li:nth-child(2) input:checked", state="attached")
    visit.wait("explained")
    assert visit.tab.evaluate("document.activeElement.matches('#classes input:checked')")
    tab_to("summary")
    keyboard.press("Enter")
    tab_to("#method")
    tab_to("#save-manifest")
    with visit.tab.expect_download():
        keyboard.press("Enter")
    tab_to("#opacity")
    keyboard.press("ArrowRight")
    assert visit.tab.inner_text("#opacity-value") == "66 %"


@pytest.mark.long
def test_what_is_seen_is_also_said(visit):
    unnamed = """[...document.querySelectorAll("input, select, button, progress, canvas:not([aria-hidden]), img")]
      .filter((e) => !(e.labels?.length || e.ariaLabel || e.alt || e.textContent.trim() || e.querySelector("img[alt]")))
      .map((e) => e.outerHTML)"""
    visit.explain(FISH)
    assert visit.tab.evaluate(unnamed) == []
    said = visit.tab.get_attribute("#photograph", "aria-label")
    assert said == "fish.png with the heatmap of fish by Score-CAM, strongest in the middle"
    assert visit.tab.inner_text("#status") == "fish: strongest in the middle."


@pytest.mark.long
def test_an_image_can_be_pasted(visit):
    visit.explain(FISH)
    visit.set_options("scorecam")
    visit.tab.evaluate(
        """async (address) => {
          const file = new File([await (await fetch(address)).blob()], "pasted.png", { type: "image/png" });
          const clipboardData = new DataTransfer();
          clipboardData.items.add(file);
          document.body.dataset.explained = false;
          document.addEventListener("ortcam-explained", () => (document.body.dataset.explained = true), { once: true });
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }""",
        "samples/shapes/mug-umbrella.png",
    )
    visit.wait_until("explained")
    assert visit.manifest()["image"]["path"] == "pasted.png"


CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = (layers) => {
    for (const layer of layers) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!says || !element.checkVisibility() || element.closest(":disabled, option, fieldset:disabled")) continue;
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
    const paper = luminance(["white", ...layers]);
    const ink = luminance([getComputedStyle(element).color]);
    const contrast = (Math.max(paper, ink) + 0.05) / (Math.min(paper, ink) + 0.05);
    if (contrast < 4.5) low.push(`${contrast.toFixed(2)} ${element.outerHTML.slice(0, 80)}`);
  }
  return low;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(visit, scheme):
    visit.tab.emulate_media(color_scheme=scheme)
    visit.explain(FISH)
    visit.tab.evaluate("document.getElementById('advanced').open = true")
    assert visit.tab.evaluate(CONTRASTS) == []
    visit.refused(("notes.jpg", b"text"))
    assert visit.tab.evaluate(CONTRASTS) == []
    visit.tab.evaluate("document.getElementById('advanced').open = false")


@pytest.mark.slow
def test_a_phone_has_the_button_in_sight_and_nothing_beside_the_screen(fresh):
    visit = fresh
    visit.tab.set_viewport_size({"width": 360, "height": 640})
    widest = "document.documentElement.scrollWidth"
    in_sight = "(id) => document.getElementById(id).getBoundingClientRect().bottom <= innerHeight"
    visit.open()
    assert visit.tab.evaluate(in_sight, "choose")
    assert visit.tab.evaluate(widest) <= 360
    name = "a-name-without-a-single-space-" * 5 + ".png"
    visit.explain((name, FISH.read_bytes()))
    visit.tab.evaluate("document.getElementById('advanced').open = true")
    assert visit.tab.evaluate(widest) <= 360
    for element in ("choose", "status", "refine"):
        assert visit.tab.evaluate(in_sight, element), element
    assert name in visit.refused((name, b"text"))
    assert visit.tab.evaluate(widest) <= 360
