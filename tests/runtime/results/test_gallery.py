"""Galleries: all that is saved is in the page, nothing of it is run, and nothing of somebody else's is overwritten."""

import base64
import dataclasses
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import ortcam
from ortcam import gallery
from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.errors import OutputError
from ortcam.images.reading import read_image
from ortcam.results.sheet import save as save_sheet

HOSTILE = ("</script><script>document.title='hacked'</script>", "<img src=x onerror=\"document.title='hacked'\">")


@pytest.fixture(scope="module")
def explained() -> list[ortcam.Explanation]:
    explainer = ortcam.load(bundle_path())
    return [explainer.explain(path, method="recipro-cam", top_k=2) for path in sample_images()]


@pytest.fixture
def folder(explained: list[ortcam.Explanation], tmp_path: Path) -> Path:
    """An output folder with two images; the classes of the first have hostile names."""
    for explanation, name, labels in zip(explained, ("fish", "mug"), (HOSTILE, ("mug", "umbrella")), strict=True):
        renamed = dataclasses.replace(explanation, labels=labels)
        renamed.save(tmp_path / name / "recipro-cam")
        save_sheet(tmp_path / name, [renamed])
    return tmp_path


def blocks(page: Path, name: str) -> list[Any]:
    """What the page says, as a browser reads it."""
    found = re.findall(rf'<script type="application/json" {name}>(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    return [json.loads(text) for text in found]


@pytest.mark.slow
def test_the_page_has_every_image_with_its_classes_and_maps(folder: Path, explained: list[ortcam.Explanation]) -> None:
    page = gallery.write(folder)
    assert page == folder / "index.html"
    (listed,) = blocks(page, 'id="list"')
    assert [image["name"] for image in listed] == ["fish.png", "mug-umbrella.png"]
    assert [image["sheet"] for image in listed] == ["fish.png", "mug.png"]
    results = blocks(page, 'class="result"')
    for result, explanation in zip(results, explained, strict=True):
        assert [one["index"] for one in result["classes"]] == list(explanation.targets)
        rows, columns = result["map_size"]
        levels = np.frombuffer(base64.b64decode(result["classes"][0]["map"]), np.uint8).reshape(rows, columns)
        small = cv2.resize(explanation.maps[0], (columns, rows), interpolation=cv2.INTER_AREA)
        assert np.abs(levels / 255 - small).mean() < 0.03
    pictures = [base64.b64decode(picture["data"].partition(",")[2]) for picture in blocks(page, 'class="photograph"')]
    for encoded, explanation in zip(pictures, explained, strict=True):
        assert np.abs(read_image(encoded).astype(int) - explanation.image).mean() < 6


@pytest.mark.slow
def test_labels_end_no_script_and_only_our_style_and_script_are_allowed(folder: Path) -> None:
    text = gallery.write(folder).read_text("utf-8")
    assert "<script>document.title" not in text
    assert "<img" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for tag in ("style", "script"):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert not re.search(r"https?://", re.sub(r"<script type.*?</script>", "", text))


@pytest.mark.slow
def test_a_page_that_is_not_ours_stays(folder: Path) -> None:
    page = folder / "index.html"
    for content in (b"<!doctype html><title>mine</title>", b"", b"\xff" * 1000):
        page.write_bytes(content)
        for what in (gallery.check, gallery.write):
            with pytest.raises(OutputError, match="is not a page that ortcam wrote and is left alone"):
                what(folder)
        assert page.read_bytes() == content
    page.unlink()
    page.symlink_to(folder / "nowhere")
    with pytest.raises(OutputError, match="left alone"):
        gallery.write(folder)
    assert not (folder / "nowhere").exists()
    with pytest.raises(OutputError, match="cannot be written"):
        gallery.write(folder / "missing")


@pytest.mark.slow
def test_an_image_that_is_added_is_the_only_one_that_is_decoded(
    folder: Path, explained: list[ortcam.Explanation], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = gallery.write(folder)
    before = blocks(page, 'class="result"')
    decoded: list[Path] = []

    def read(path: Path) -> np.ndarray:
        decoded.append(path)
        return read_image(path)

    with monkeypatch.context() as patch:
        patch.setattr("ortcam.results.gallery.read_image", read)
        patch.setattr("ortcam.results.gallery.SavedResult.read", lambda *_: pytest.fail("a map was read again"))
        gallery.write(folder)
    assert decoded == []
    assert blocks(page, 'class="result"') == before
    record = explained[0].provenance | {"image": {"path": "third.png", "sha256": "3"}}
    dataclasses.replace(explained[0], provenance=record).save(folder / "third" / "recipro-cam")
    monkeypatch.setattr("ortcam.results.gallery.read_image", read)
    gallery.write(folder)
    assert [path.parent.parent.name for path in decoded] == ["third"]
    (listed,) = blocks(page, 'id="list"')
    assert [image["name"] for image in listed] == ["fish.png", "mug-umbrella.png", "third.png"]
    shutil.rmtree(folder / "fish")
    gallery.write(folder)
    (listed,) = blocks(page, 'id="list"')
    assert [image["name"] for image in listed] == ["mug-umbrella.png", "third.png"]


@pytest.mark.slow
def test_what_is_damaged_is_left_out_and_a_result_of_an_earlier_version_has_its_map(folder: Path) -> None:
    (folder / "mug" / "recipro-cam" / "image.jpg").unlink()  # as before there was one
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "manifest.json").write_text("{")
    manifest = json.loads((folder / "mug" / "recipro-cam" / "manifest.json").read_text())
    for name in manifest["files"]:
        if name.endswith(".npy"):
            shutil.copy(folder / "mug" / "recipro-cam" / name, folder / "a" / "b")
    manifest["targets"][0]["probability"] = float("nan")
    (folder / "a" / "b" / "manifest.json").write_text(json.dumps(manifest))
    page = gallery.write(folder)
    (listed,) = blocks(page, 'id="list"')
    assert [(image["name"], image["photograph"]) for image in listed] == [("fish.png", 0), ("mug-umbrella.png", None)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("cut", "height"), 0),
        (("cut", "height"), float("inf")),
        (("photograph_size",), [0, 0]),
        (("photograph_size",), [10**9, 10**9]),
        (("targets", 0, "probability"), float("nan")),
        (("targets", 0, "probability"), 1e308),
        (("method",), ["a"]),
    ],
)
def test_a_manifest_that_somebody_has_changed_ends_neither_page_nor_sheet(
    keys: tuple[Any, ...], value: object, folder: Path, explained: list[ortcam.Explanation]
) -> None:
    path = folder / "mug" / "recipro-cam" / "manifest.json"
    manifest = json.loads(path.read_text())
    part = manifest
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(manifest))
    (listed,) = blocks(gallery.write(folder), 'id="list"')
    assert [image["name"] for image in listed] == ["fish.png"]
    save_sheet(folder / "mug", [explained[1]])


@pytest.mark.slow
def test_a_map_that_only_says_that_it_is_large_takes_no_memory(folder: Path) -> None:
    place = next((folder / "mug" / "recipro-cam").glob("*.npy"))
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 10000000), }".ljust(117) + "\n"
    place.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    (listed,) = blocks(gallery.write(folder), 'id="list"')
    assert [image["name"] for image in listed] == ["fish.png"]


@pytest.mark.slow
def test_a_page_that_somebody_has_changed_is_written_anew(folder: Path) -> None:
    page = gallery.write(folder)
    text = page.read_text("utf-8")
    page.write_text(text.replace('"folder":', '"somewhere":'), "utf-8")
    gallery.write(folder)
    assert page.read_text("utf-8") == text


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are text there")
def test_a_folder_whose_name_is_no_text_is_in_the_page(explained: list[ortcam.Explanation], tmp_path: Path) -> None:
    explained[0].save(tmp_path / os.fsdecode(b"caf\xe9 #1") / "recipro-cam")
    (result,) = blocks(gallery.write(tmp_path), 'class="result"')
    assert result["folder"] == "caf%E9%20%231/recipro-cam"
    assert len(blocks(tmp_path / "index.html", 'class="photograph"')) == 1


def _add(folder: Path, explanation: ortcam.Explanation, name: str) -> None:
    for n in range(5):
        record = explanation.provenance | {"image": {"path": f"{name}{n}.png", "sha256": f"{name}{n}"}}
        dataclasses.replace(explanation, provenance=record).save(folder / f"{name}{n}" / "recipro-cam")
        gallery.write(folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_two_processes_that_write_one_page_lose_nothing(explained: list[ortcam.Explanation], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add, args=(tmp_path, explained[0], name)) for name in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    (listed,) = blocks(tmp_path / "index.html", 'id="list"')
    assert len(listed) == 10
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    chromium = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    try:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    except pytest.importorskip("playwright.sync_api").Error:
        pytest.skip("no Chromium here")
    yield found
    found.close()


@pytest.mark.slow
def test_a_browser_leafs_through_classes_images_and_colours(folder: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 800})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(gallery.write(folder).as_uri())
    page.wait_for_selector("#classes button")

    seen: list[str] = []

    def changed() -> None:
        """Wait until another picture is drawn than any before."""
        page.wait_for_function(
            "seen => !seen.includes(document.getElementById('large').toDataURL())", arg=seen, timeout=15_000
        )
        seen.append(page.evaluate("document.getElementById('large').toDataURL()"))

    changed()
    assert page.locator("#classes b").all_inner_texts() == list(HOSTILE)
    assert page.title() != "hacked"
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.keyboard.press("ArrowDown")
    changed()
    page.keyboard.press("ArrowRight")
    changed()
    assert page.inner_text("#name") == "mug-umbrella.png"
    page.select_option("#colours", "viridis")
    changed()
    page.locator("#opacity").fill("0")
    changed()
    page.fill("#filter", "onerror")
    assert page.inner_text("#count") == "1 of 2 images"
    changed()
    assert page.inner_text("#name") == "fish.png"
    page.fill("#filter", "no such thing")
    assert "No image matches" in page.inner_text("#images")
    assert wrong == []
    page.close()


@pytest.mark.slow
def test_one_image_alone_has_the_width_of_the_page(
    explained: list[ortcam.Explanation], tmp_path: Path, browser: Any
) -> None:
    explained[0].save(tmp_path / "fish" / "recipro-cam")
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    page.goto(gallery.write(tmp_path).as_uri())
    page.wait_for_selector("#classes button")
    wide, facts = (page.locator(f"#{name}").bounding_box()["width"] for name in ("stage", "facts"))
    assert wide > 2 * facts
    page.close()
