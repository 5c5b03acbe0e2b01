"""The page in a real browser: what it computes is what Python computes, and it can be used by everyone."""

import hashlib
import io
import json
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from tests.web.conftest import SAMPLES, SHIPPED

import ortcam
from ortcam.image import encode_png, read_image

FISH, MUG = SAMPLES / "fish.png", SAMPLES / "mug-umbrella.png"


def explain(explainer, picture, method, percent=100, **options):
    """Python's explanation with the page's budget: the channels beyond it weigh nothing."""
    budget = {} if percent == 100 else {"budget": percent / 100, "completion": "none"}
    return explainer.explain(picture, method=method, batch_size=8, **budget, **options)


def test_it_loads_without_complaint_in_several_threads_and_asks_nobody_else(fresh):
    visit = fresh.open()
    assert visit.tab.evaluate("crossOriginIsolated")
    assert "WebAssembly" in visit.tab.inner_text("#engine")
    assert "1 thread" not in visit.tab.inner_text("#engine")
    visit.read(FISH).explain("scorecam", percent=1)
    assert {urlsplit(address).netloc for address in visit.requests if not address.startswith("blob:")} == {
        urlsplit(visit.site.address).netloc
    }
    assert not [address for address in visit.requests if "asyncify" in address]  # the other runtime


def test_neither_page_nor_worker_may_speak_to_others(fresh):
    visit = fresh
    policies = {}
    visit.tab.on("response", lambda answer: policies.update({answer.url: answer.headers}))
    visit.open()
    worker = next(headers for address, headers in policies.items() if "/worker-" in address)
    for headers in (policies[visit.site.address], worker):
        assert "connect-src 'self'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
    assert visit.tab.get_attribute("meta[http-equiv=Content-Security-Policy]", "content").startswith("default-src")
    refused = visit.tab.evaluate("fetch('http://localhost:9/', {method: 'POST', body: 'x'}).catch((e) => e.message)")
    assert refused == "Failed to fetch"
    assert any("Content Security Policy" in line for line in visit.complaints)
    visit.complaints.clear()


@pytest.mark.parametrize(
    ("picture", "method", "page", "python"),
    [
        (FISH, "scorecam", {}, {}),
        (MUG, "scorecam", {"target": 5}, {"target": 5}),
        (FISH, "scorecam++", {"gate": "tanh"}, {}),
        (MUG, "scorecam++", {"gate": "sigmoid-relu"}, {"gate": "sigmoid-relu"}),
        (MUG, "scorecam++", {"gate": "relu", "target": 6}, {"gate": "relu", "target": 6}),
        (FISH, "scorecam++", {"gate": "minmax"}, {"gate": "minmax"}),
        (MUG, "iscam", {"samples": 3}, {"num_samples": 3}),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else None,
)
def test_a_shipped_picture_is_explained_as_in_python(visit, explainer, record_property, picture, method, page, python):
    visit.read(picture)
    found = visit.explain(method, percent=6, **page)
    expected = explain(explainer, picture, method, percent=6, **python)
    assert found.dtype == np.float32
    difference = float(np.abs(found - expected.maps[0]).max())
    record_property("difference", difference)
    assert difference <= 1e-3
    probabilities = [row["probability"] for row in visit.manifest()["probabilities"]]
    np.testing.assert_allclose(probabilities, explainer.predict(picture), atol=1e-5)


def test_all_channels_give_the_exact_map_and_it_grows_on_the_way(fresh, explainer, record_property):
    visit = fresh.open().read(MUG)
    visit.tab.evaluate(
        """() => {
          window.seen = [];
          const heatmap = document.getElementById("heatmap");
          const probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
          document.addEventListener("ortcam-preview", ({ detail }) => {
            if (detail.map === null) return;
            probe.clearRect(0, 0, 1, 1);
            probe.drawImage(heatmap, -heatmap.width >> 1, -heatmap.height >> 1);
            const [, , , alpha] = probe.getImageData(0, 0, 1, 1).data;
            window.seen.push({ passes: detail.passes, total: detail.total, alpha, map: detail.map.data });
          });
          document.addEventListener("ortcam-explained", ({ detail }) => {
            for (const preview of window.seen) {
              const errors = preview.map.map((value, i) => Math.abs(value - detail.map.data[i]));
              preview.error = errors.reduce((a, b) => Math.max(a, b));
              delete preview.map;
            }
          });
        }"""
    )
    found = visit.explain("scorecam")
    expected = explain(explainer, MUG, "scorecam")
    difference = float(np.abs(found - expected.maps[0]).max())
    record_property("difference", difference)
    assert difference <= 1e-3
    seen = visit.tab.evaluate("seen")
    passes = [preview["passes"] for preview in seen]
    assert len(seen) >= 3
    assert passes == sorted(set(passes))
    assert passes[0] < expected.stats.passes / 4
    assert {preview["total"] for preview in seen} == {expected.stats.passes}
    assert {preview["alpha"] for preview in seen} == {255}
    errors = [preview["error"] for preview in seen]
    assert errors[0] > 0.01
    assert errors[-1] < 0.5 * errors[0]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """JPEG files that are larger than the model's input, the second turned by its EXIF entry."""
    folder = tmp_path_factory.mktemp("photographs")
    picture = Image.open(MUG).resize((731, 502), Image.Resampling.LANCZOS)
    turned = Image.Exif()
    turned[274] = 6
    picture.save(folder / "plain.jpg", quality=88)
    picture.save(folder / "turned.jpg", quality=80, exif=turned)
    return folder


@pytest.mark.parametrize("name", ["plain.jpg", "turned.jpg"])
def test_a_jpeg_photograph_is_explained_as_in_python(visit, explainer, photographs, record_property, name):
    visit.read(photographs / name)
    found = visit.explain("scorecam", percent=6)
    expected = explain(explainer, photographs / name, "scorecam", percent=6)
    difference = float(np.abs(found - expected.maps[0]).max())
    record_property("difference", difference)
    assert difference <= 1e-3
    written = read_image(visit.download("#save-overlay").read_bytes())
    assert np.abs(written.astype(int) - expected.overlay()).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_colours_under_the_alpha_of_a_png_are_kept(visit, explainer, mode):
    picture = Image.open(FISH)
    file = io.BytesIO()
    if mode == "P":
        picture.quantize(200).save(file, "PNG", transparency=bytes(range(200)))
    else:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.convert(mode).save(file, "PNG")
    visit.read(("glass.png", file.getvalue()))
    found = visit.explain("scorecam", percent=3)
    expected = explain(explainer, file.getvalue(), "scorecam", percent=3)
    np.testing.assert_allclose(found, expected.maps[0], atol=1e-3)


def test_ss_cam_has_pythons_noise(visit, explainer):
    visit.read(FISH)
    first = visit.explain("sscam", percent=3, samples=4, seed=1)
    again = visit.explain("sscam", percent=3, samples=4, seed=1)
    other = visit.explain("sscam", percent=3, samples=4, seed=2)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    expected = explain(explainer, FISH, "sscam", percent=3, num_samples=4, seed=1).maps[0]
    np.testing.assert_allclose(first, expected, atol=1e-5)


def test_it_cancels_and_can_explain_again(visit, explainer):
    visit.read(FISH).settings("sscam", samples=100)
    visit.tab.evaluate(
        "document.addEventListener('ortcam-preview', ({detail}) => (document.body.dataset.passes = detail.passes > 0))"
    )
    visit.tab.click("#explain")
    visit.tab.wait_for_selector("body[data-passes=true]")
    assert visit.tab.is_disabled("#explain")
    assert visit.tab.evaluate("document.activeElement.id") == "cancel"
    visit.tab.click("#cancel")
    visit.wait("ready")
    assert visit.tab.evaluate("document.activeElement.id") == "explain"
    assert visit.tab.inner_text("#status") == "Cancelled."
    assert visit.tab.is_disabled("#save-map")
    found = visit.explain("scorecam", percent=3)
    np.testing.assert_allclose(found, explain(explainer, FISH, "scorecam", percent=3).maps[0], atol=1e-3)


def test_another_picture_ends_an_explanation(visit, explainer):
    visit.read(FISH).settings("sscam", samples=100)
    visit.tab.click("#explain")
    visit.tab.click("#samples button >> nth=1")
    visit.wait("ready")
    assert "mug-umbrella.png, 320 × 240 pixels" in visit.tab.inner_text("#caption")
    np.testing.assert_allclose(
        visit.explain("scorecam", percent=3), explain(explainer, MUG, "scorecam", percent=3).maps[0], atol=1e-3
    )


def _large_png():
    """The header of a picture of 10^10 pixels."""
    data = bytearray(encode_png(np.zeros((1, 1, 3), np.uint8)))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "notes.jpg",
            b"Hello, this is text.\n",
            'notes.jpg is not a picture that browsers read: it begins with "Hello, t"',
        ),
        ("empty.jpg", b"", "empty.jpg is empty: 0 bytes"),
        ("half.png", FISH.read_bytes()[:5000], "half.png is truncated: 5000 bytes end before the picture does"),
        ("large.png", _large_png(), "large.png has 100000 x 100000 = 10000000000 pixels, more than the limit"),
        ("damaged.gif", b"GIF89a\x10\x00\x10\x00" + bytes(90), "damaged.gif is a GIF file that cannot be decoded"),
    ],
)
def test_what_is_no_picture_is_refused_and_the_page_goes_on(visit, name, content, message):
    visit.read(FISH)
    assert not visit.tab.is_visible("#error")
    visit.read((name, content), state=None)
    assert message in visit.error
    if "large" not in name:
        assert "accepted: JPEG, PNG, WebP, GIF, BMP, AVIF" in visit.error
    # The picture that was there stays.
    assert "fish" in visit.tab.inner_text("#probabilities li >> nth=0")
    assert visit.explain("scorecam", percent=1).max() == 1
    visit.read(MUG)
    assert not visit.tab.is_visible("#error")
    assert "mug" in visit.tab.inner_text("#caption")


def test_the_downloads_are_those_of_python(visit, explainer):
    visit.read(MUG)
    visit.explain("scorecam++", percent=6, gate="mish", target=4)
    visit.tab.select_option("#colormap", "turbo")
    visit.tab.fill("#opacity", "70")
    manifest = visit.manifest()
    expected = explain(explainer, MUG, "scorecam++", percent=6, gate="mish", target=4)
    summary = json.loads(json.dumps(expected.summary()))
    for key in ("method", "options", "map_size", "photograph_size", "limits", "bundle", "activation", "preprocessing"):
        assert manifest[key] == summary[key], key
    (found,), (wanted,) = manifest["targets"], summary["targets"]
    assert found == wanted | {"probability": pytest.approx(wanted["probability"], abs=1e-6)}
    for key in ("precision", "channels", "live_channels", "scored_channels", "passes", "energy_covered"):
        assert manifest["stats"][key] == pytest.approx(summary["stats"][key]), key
    assert manifest["stats"]["providers"] == ["wasm"]
    assert manifest["image"] == {"path": MUG.name, "sha256": hashlib.sha256(MUG.read_bytes()).hexdigest()}
    assert manifest["rendering"] == {"colormap": "turbo", "alpha": 0.7}
    assert manifest["versions"]["ortcam"] == summary["versions"]["ortcam"]
    assert manifest["versions"]["onnxruntime-web"].count(".") == 2
    written = read_image(visit.download("#save-overlay").read_bytes())
    difference = np.abs(written.astype(int) - expected.overlay(colormap="turbo", alpha=0.7))
    assert difference.max() <= 2
    assert difference.mean() < 0.02


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
    # Chromium shows the focus of the hidden input as the outline of the area around it.
    assert visit.tab.evaluate("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
    with visit.tab.expect_file_chooser():
        keyboard.press("Enter")
    tab_to("#samples button:last-child")
    keyboard.press("Enter")
    visit.wait("ready")
    tab_to("#target")
    keyboard.press("ArrowDown")
    tab_to("#method")
    keyboard.press("ArrowDown")
    assert visit.tab.input_value("#method") == "scorecam"
    tab_to("#budget")
    keyboard.press("Control+A")
    keyboard.type("2")
    tab_to("#explain")
    keyboard.press("Enter")
    visit.wait("explained")
    tab_to("#opacity")
    keyboard.press("ArrowRight")
    assert visit.tab.inner_text("#opacity-value") == "51 %"
    tab_to("#save-manifest")
    with visit.tab.expect_download():
        keyboard.press("Enter")


def test_what_is_seen_is_also_said(visit):
    unnamed = """[...document.querySelectorAll("input, select, button, progress, canvas:not([aria-hidden]), img")]
      .filter((e) => !(e.labels?.length || e.ariaLabel || e.alt || e.textContent.trim() || e.querySelector("img[alt]")))
      .map((e) => e.outerHTML)"""
    assert visit.tab.evaluate(unnamed) == []
    visit.read(FISH)
    assert visit.tab.get_attribute("#photograph", "aria-label") == "fish.png, without a heatmap"
    visit.explain("scorecam", percent=6)
    said = visit.tab.get_attribute("#photograph", "aria-label")
    assert said == "fish.png with the heatmap of fish by Score-CAM, strongest in the middle"
    assert visit.tab.inner_text("#status") == "Score-CAM for fish: strongest in the middle."


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(visit, scheme):
    visit.tab.emulate_media(color_scheme=scheme)
    visit.read(FISH).explain("scorecam", percent=1)
    assert visit.tab.evaluate(CONTRASTS) == []
    visit.read(("notes.jpg", b"text"), state=None)
    assert visit.tab.evaluate(CONTRASTS) == []


def test_it_fits_a_phone(fresh):
    visit = fresh
    visit.tab.set_viewport_size({"width": 390, "height": 844})
    widest = "document.documentElement.scrollWidth"
    visit.open()
    assert visit.tab.evaluate(widest) <= 390
    visit.read(("notes.jpg", b"text"), state=None)
    assert "notes.jpg is not a picture" in visit.error
    name = "a-name-without-a-single-space-" * 5 + ".png"
    visit.read((name, FISH.read_bytes())).settings("sscam", samples=1)
    assert visit.tab.evaluate(widest) <= 390
    visit.explain("scorecam", percent=1)
    assert visit.tab.evaluate(widest) <= 390
    visit.read((name, b"text"), state=None)
    assert visit.tab.evaluate(widest) <= 390


# Bundles of one's own.


@pytest.mark.parametrize(("method", "kind"), [("scorecam", "tiny"), ("scorecam++", "tiny"), ("scorecam", "branch")])
def test_another_bundle_is_explained_as_in_python(fresh, method, kind, request, photograph):
    visit = fresh
    bundle = request.getfixturevalue(f"{kind}_bundle")
    name = f"{kind}-{method.replace('+', 'p')}"
    visit.site.add_bundle(name, bundle)
    visit.open(f"?bundle={name}")
    assert "6 classes, sees 48 × 32 pixels" in visit.tab.inner_text("#engine")
    found = visit.read(photograph).explain(method)
    np.testing.assert_allclose(found, explain(ortcam.load(bundle), photograph, method).maps[0], atol=1e-3)
    assert visit.manifest()["cut"]["channels"] == 10


def truncate(bundle):
    path = bundle / "weights.bin"
    path.write_bytes(path.read_bytes()[:1000])


def alter(bundle):
    path = bundle / "features.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def lose(bundle):
    (bundle / "features.onnx").unlink()


def rewrite(**entries):
    def change(bundle):
        path = bundle / "bundle.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | entries), "utf-8")

    return change


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("truncated", truncate, "truncated/weights.bin: truncated, 1000 bytes instead of 1470720; copy or export"),
        ("altered", alter, "altered/features.onnx: altered, its SHA-256 is not the one in bundle.json"),
        ("lost", lose, "lost/features.onnx: missing, the server answers 404"),
        ("newer", rewrite(schema=99), "newer/bundle.json: schema 99 is newer than this page reads (3)"),
        ("wrong", rewrite(labels=[]), "wrong/bundle.json.labels is []: accepted is a list of texts"),
        ("strange", rewrite(activation="relu"), 'activation is "relu": accepted is softmax or sigmoid'),
    ],
)
def test_a_damaged_bundle_is_refused(fresh, name, damage, message):
    visit = fresh
    damage(visit.site.add_bundle(name, SHIPPED))
    visit.open(f"?bundle={name}", state="broken")
    assert message in visit.error
    assert visit.tab.is_disabled("#file")
    if name == "lost":
        assert len(visit.complaints) == 1
        visit.complaints.clear()


@pytest.mark.parametrize(
    "address", ["https://example.org/x", "//example.org/x", "data:text/plain,x", "\\\\example.org"]
)
def test_a_bundle_from_elsewhere_is_refused_without_asking_for_it(fresh, address):
    visit = fresh
    visit.open(f"?bundle={address}", state="broken")
    assert "accepted is a relative path on this site" in visit.error
    assert not [asked for asked in visit.requests if not asked.startswith(visit.site.address)]
