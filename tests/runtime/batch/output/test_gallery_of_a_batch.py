"""The page of thumbnails of a batch: which images it has, that nothing of them is run, and what it leaves alone."""

import base64
import dataclasses
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from tests.common.batches import draw_images, in_process

import ortcam
from ortcam.batch.output.gallery import draw_sample
from ortcam.cli import main
from ortcam.errors import OptionError, OutputError

HOSTILE = "</script><script>document.title='hacked'</script>.png"


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", in_process)


def explain(bundle: Path, folder: Path, output: Path, **options: Any) -> Any:
    return ortcam.batch.run(bundle, folder, output, method="eigen-cam", batch_size=4, **options)


def blocks(text: str, name: str) -> list[Any]:
    """What the page says, as a browser reads it."""
    return [json.loads(found) for found in re.findall(rf'<script type="application/json" {name}>(.*?)</script>', text)]


def parts_of(numbers: list[list[int]]) -> dict[str, list[str]]:
    return {f"part-{place}": [f"{number}.png" for number in part] for place, part in enumerate(numbers)}


def drawn(parts: dict[str, list[str]], count: int) -> set[str]:
    return {id_ for ids in draw_sample(list(parts), parts.__getitem__, count).ids.values() for id_ in ids}


def test_the_sample_depends_on_the_ids_alone_and_grows() -> None:
    numbers = np.random.default_rng(0).permutation(1000).tolist()
    parts = parts_of([numbers[:10], numbers[10:700], [], numbers[700:]])
    others = parts_of([sorted(numbers)])
    assert drawn(parts, 20) == drawn(others, 20)
    assert len(drawn(parts, 20)) == 20
    assert drawn(parts, 20) < drawn(parts, 50)
    assert drawn(parts, 2000) == set(others["part-0"])
    sample = draw_sample(list(parts), parts.__getitem__, 20)
    assert (sample.count, sample.whole) == (1000, True)
    # Chance has no favourites: of 500 of 1,000 ids, the half that comes first has 250 with a deviation of 7.9 (of a
    # hypergeometric distribution); six of them.
    first = {f"{number}.png" for number in range(500)}
    assert abs(len(drawn(parts, 500) & first) - 250) < 48


def test_of_very_many_parts_some_are_looked_into() -> None:
    parts = parts_of([[number] for number in range(2500)])
    asked: list[str] = []

    def ids_of(name: str) -> list[str]:
        asked.append(name)
        return parts[name]

    sample = draw_sample(list(parts), ids_of, 5)
    assert len(asked) == 1000
    assert (asked[0], asked[-1]) == ("part-0", "part-2499")
    assert not sample.whole


def test_the_page_has_the_images_with_their_maps(tiny_bundle: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "in", 4)
    (tmp_path / "in" / "0001.png").write_text("no image")
    (tmp_path / "in" / "0002.png").rename(tmp_path / "in" / "<b>2.png")
    report = explain(tiny_bundle, tmp_path / "in", tmp_path / "out", gallery=10, top_k=2, overlays="jpeg", maps="full")
    assert report.gallery == str(tmp_path / "out" / "_gallery" / "index.html")
    text = Path(report.gallery).read_text("utf-8")
    (listed,), (settings,) = blocks(text, 'id="list"'), blocks(text, 'id="settings"')
    assert [image["name"] for image in listed] == ["0000.png", "0003.png", "<b>2.png"]
    assert settings["count"] == "3 images"
    results = ortcam.batch.open(tmp_path / "out")
    for image, result in zip(listed, blocks(text, 'class="result"'), strict=True):
        explanation = results[image["name"]]
        assert [one["index"] for one in result["classes"]] == list(explanation.targets)
        assert result["place"] == explanation.path
        rows, columns = result["map_size"]
        levels = np.frombuffer(base64.b64decode(result["classes"][0]["map"]), np.uint8).reshape(rows, columns)
        assert levels.max() > 200
        assert abs(levels.mean() / 255 - explanation.maps[0].mean()) < 0.05
    assert len(blocks(text, 'class="photograph"')) == 3
    assert "<b>2" not in text.replace("\\u003c", "")


def test_the_page_has_the_estimated_error_of_a_budget(tiny_bundle: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "in", 1)
    ortcam.batch.run(tiny_bundle, tmp_path / "in", tmp_path / "out", method="scorecam", budget=2, gallery=1)
    text = (tmp_path / "out" / "_gallery" / "index.html").read_text("utf-8")
    (result,) = blocks(text, 'class="result"')
    assert "error" in " ".join(result["notes"])
    assert "channels" not in " ".join(result["notes"])  # rows do not count them


def test_a_hostile_name_ends_no_script(tiny_bundle: Path, tmp_path: Path) -> None:
    (path,) = draw_images(tmp_path / "in", 1)
    (tmp_path / "list.csv").write_text(f'path,id\n"{path}","{HOSTILE}"\n')
    report = explain(tiny_bundle, tmp_path / "list.csv", tmp_path / "out", gallery=1)
    text = Path(report.gallery).read_text("utf-8")
    assert "<script>document.title" not in text
    assert blocks(text, 'id="list"')[0][0]["name"] == HOSTILE


def test_some_are_drawn_and_lost_photographs_are_counted(tiny_bundle: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "in", 6)
    explain(tiny_bundle, tmp_path / "in", tmp_path / "out")
    results = ortcam.batch.open(tmp_path / "out")
    text = Path(results.gallery(4, to=tmp_path / "page")).read_text("utf-8")
    assert blocks(text, 'id="settings"')[0]["count"] == "4 images, drawn from 6"
    shown = [image["name"] for image in blocks(text, 'id="list"')[0]]
    (tmp_path / "in" / shown[0]).unlink()
    text = Path(results.gallery(4, to=tmp_path / "page")).read_text("utf-8")
    assert [image["name"] for image in blocks(text, 'id="list"')[0]] == shown[1:]
    words = "3 images, drawn from 6; of 1 more the photograph could not be read"
    assert blocks(text, 'id="settings"')[0]["count"] == words


def test_a_page_can_lie_in_an_object_store(tiny_bundle: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "in", 1)
    explain(tiny_bundle, tmp_path / "in", tmp_path / "out")
    place = f"memory://gallery-{tmp_path.name}"
    assert ortcam.batch.open(tmp_path / "out").gallery(to=place) == f"{place}/index.html"
    assert fsspec.filesystem("memory").cat(f"{place}/index.html").startswith(b"<!doctype html>")


def test_what_cannot_be_done_is_said(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = draw_images(tmp_path / "in", 1)
    with pytest.raises(OptionError, match="gallery=0: accepted is a whole number from 1 to 2000"):
        explain(tiny_bundle, tmp_path / "in", tmp_path / "out", gallery=0)
    assert not (tmp_path / "out").exists()
    explain(tiny_bundle, tmp_path / "in", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my page")
    with pytest.raises(OutputError, match="is not a page that ortcam wrote"):
        ortcam.batch.open(tmp_path / "out").gallery(to=tmp_path / "mine")
    assert (tmp_path / "mine" / "index.html").read_text() == "my page"
    path.write_text("no image")
    report = explain(tiny_bundle, tmp_path / "in", tmp_path / "failed", gallery=3)
    assert dataclasses.asdict(report) == dataclasses.asdict(report) | {"gallery": None, "succeeded": False}
    with pytest.raises(OutputError, match="no image was explained yet"):
        ortcam.batch.open(tmp_path / "failed").gallery()


def test_the_command_says_where_the_page_is(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_images(tmp_path / "in", 2)
    command = ["batch", str(tiny_bundle), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-m", "eigen-cam"]
    assert main([*command, "--batch-size", "4", "--gallery", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Open {tmp_path / 'out' / '_gallery' / 'index.html'}"
    assert main([*command, "--resume", "--gallery"]) == 0
    text = (tmp_path / "out" / "_gallery" / "index.html").read_text("utf-8")
    assert blocks(text, 'id="settings"')[0]["count"] == "2 images"


@pytest.mark.long
def test_a_browser_shows_the_page(chromium: str, tiny_bundle: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "in", 3)
    report = explain(tiny_bundle, tmp_path / "in", tmp_path / "out", gallery=3)
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [*command, Path(report.gallery).as_uri()], capture_output=True, text=True, check=True, timeout=300
    )
    assert "CONSOLE" not in done.stderr
    assert '<p id="place">1 of 3</p>' in done.stdout
    assert re.search(r'<p id="links">[^<]*0000\.png</p>', done.stdout)
