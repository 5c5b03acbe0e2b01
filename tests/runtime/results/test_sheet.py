"""Sheets: a row per class, a column per method; nothing of somebody else's is overwritten."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.errors import OptionError, OrtcamError
from ortcam.images.encoding import is_sheet, write_png
from ortcam.images.reading import read_image
from ortcam.images.rendering import Rendering
from ortcam.results.screen import show
from ortcam.results.sheet import save

LABELS = ("fish", "a label so long that no sheet has room for it, gypsy quay " * 9, "猫", "قطة", "<b>", "", "\x1b[31m")


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path())


@pytest.fixture(scope="module")
def explained(explainer: ortcam.Explainer) -> ortcam.Explanation:
    return explainer.explain(demo_image(), method="eigen-cam", target=["umbrella", "mug"])


def stretched(explanation: ortcam.Explanation, size: tuple[int, int], classes: int) -> ortcam.Explanation:
    """An explanation of an image of another size, with more classes."""
    image = np.full((*size, 3), 90, np.uint8)
    record = explanation.provenance | {"image": {"path": "a/b.png", "sha256": str(size)}}
    return dataclasses.replace(
        explanation,
        image=image,
        targets=tuple(range(classes)),
        labels=(LABELS * 9)[:classes],
        probabilities=np.linspace(1, 0, classes, dtype=np.float32),
        maps=np.repeat(explanation.maps[:1], classes, axis=0),
        flat=np.zeros(classes, bool),
        provenance=record,
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [(240, 320), (640, 200), (1, 1), (30, 900)])
@pytest.mark.parametrize(("classes", "methods"), [(1, 1), (3, 4), (10, 10), (40, 2)])
def test_a_sheet_has_a_white_margin_and_is_neither_tiny_nor_huge(
    explained: ortcam.Explanation, size: tuple[int, int], classes: int, methods: int
) -> None:
    picture = ortcam.sheet([stretched(explained, size, classes)] * methods)
    assert picture.dtype == np.uint8
    margin = np.ones(picture.shape[:2], bool)
    margin[8:-8, 8:-8] = False
    assert (picture[margin] == 255).all()
    assert 150 < picture.shape[0] < 9000
    assert 350 < picture.shape[1] < 5000


@pytest.mark.slow
def test_rows_and_columns_make_a_sheet_larger(explained: ortcam.Explanation) -> None:
    one = ortcam.sheet([stretched(explained, (200, 200), 1)])
    more_rows = ortcam.sheet([stretched(explained, (200, 200), 3)])
    more_columns = ortcam.sheet([stretched(explained, (200, 200), 1)] * 3)
    assert more_rows.shape[0] > 2 * one.shape[0]
    assert more_columns.shape[1] > 1.4 * one.shape[1]


def test_it_shows_the_photograph_and_the_map(explained: ortcam.Explanation) -> None:
    plain, coloured = (explained.sheet(title="", alpha=alpha) for alpha in (0.0, 1.0))
    assert plain.shape == coloured.shape
    changed = (plain != coloured).any(axis=2)
    columns = np.flatnonzero(changed[: -plain.shape[0] // 8].any(axis=0))
    assert columns.min() > plain.shape[1] / 2, "the first of the two columns is the photograph"


def test_two_images_make_no_sheet(explained: ortcam.Explanation) -> None:
    with pytest.raises(OptionError, match="explanations of one image"):
        ortcam.sheet([explained, dataclasses.replace(explained, image=explained.image[::-1])])
    with pytest.raises(OptionError, match="one or more"):
        ortcam.sheet([])


@pytest.mark.slow
def test_it_is_saved_with_what_earlier_runs_saved(explainer: ortcam.Explainer, tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    first = explainer.explain(demo_image(), method="eigen-cam", target="mug")
    first.save(folder / "eigen-cam")
    alone = read_image(save(folder, [first]))
    second = explainer.explain(demo_image(), method="recipro-cam", target="umbrella")
    second.save(folder / "recipro-cam")
    path = save(folder, [second])
    assert path == tmp_path / "cat.png"
    both = read_image(path)
    assert both.shape[0] > 1.2 * alone.shape[0]
    assert is_sheet(path)
    other = tmp_path / "cat" / "cam"
    other.mkdir()
    for damage in (b"{", b"[]", json.dumps(second.summary() | {"rendering": Rendering().record()}).encode()):
        (other / "manifest.json").write_bytes(damage)  # the last one without its maps
        assert read_image(save(folder, [second])).shape == both.shape


def test_a_file_that_is_no_sheet_is_never_overwritten(explained: ortcam.Explanation, tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    explained.save(folder / "eigen-cam")
    write_png(tmp_path / "cat.png", explained.image)
    (tmp_path / "cat-sheet.png").symlink_to(tmp_path / "nowhere")
    before = (tmp_path / "cat.png").read_bytes()
    for _ in range(2):
        assert save(folder, [explained]) == tmp_path / "cat-sheet-2.png"
    assert (tmp_path / "cat.png").read_bytes() == before
    assert not is_sheet(tmp_path / "cat.png")
    assert not (tmp_path / "nowhere").exists()
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.slow
def test_a_notebook_shows_the_sheet_and_says_little(explained: ortcam.Explanation) -> None:
    hostile = dataclasses.replace(explained, labels=("<script>", '"'))
    shown = hostile._repr_html_()
    assert shown.startswith('<img src="data:image/png;base64,')
    assert "<script" not in shown
    assert shown.count('"') == 6, "of three attributes, and none of a label"
    np.testing.assert_array_equal(read_image(explained._repr_png_()), explained.sheet())
    assert len(repr(explained)) < 120
    assert len(repr(explained.stats)) < 120


def test_an_overlay_becomes_a_pillow_image(explained: ortcam.Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    image = explained.to_pil("mug", longest_side=64)
    np.testing.assert_array_equal(np.asarray(image), explained.overlay("mug", longest_side=64))
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(OrtcamError, match="pip install pillow"):
        explained.to_pil()


def test_without_a_screen_there_is_one_sentence(
    explained: ortcam.Explanation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    monkeypatch.setattr("ortcam.results.screen.has_screen", lambda: False)
    with pytest.raises(OrtcamError, match="there is no screen here; save"):
        show(explained)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("ortcam.results.screen.has_screen", lambda: True)
    explained.show()
    assert [path.as_uri() for path in tmp_path.iterdir()] == opened
