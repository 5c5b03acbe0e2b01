"""The same images give the same rows, whatever INPUT they come from; and the results find each image again."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.common.batches import draw_images, in_process

import ortcam.batch
from ortcam.bundle.shipped import bundle_path

pytestmark = pytest.mark.long

IMAGES = 3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw_images(tmp_path_factory.mktemp("kinds") / "images", IMAGES)


@pytest.fixture(scope="module")
def expected(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    with pytest.MonkeyPatch.context() as patch:
        return rows(images[0].parent, tmp_path_factory.mktemp("expected") / "out", patch)


def rows(given: str | Path, output: Path, patch: pytest.MonkeyPatch) -> pa.Table:
    """What the rows of a batch have in common, whatever their ids are."""
    patch.setattr("ortcam.batch.local.driver.run_local", in_process)
    report = ortcam.batch.run(bundle_path(), str(given), output, method="grad-cam")
    assert (report.images, report.failures) == (IMAGES, 0)
    table = ortcam.batch.open(output).table()
    return table.take(pa.array(np.argsort(table["id"].to_pylist()))).select(["label", "probability", "map"])


def folder(images: list[Path], place: Path) -> str:
    return str(images[0].parent)


def store(images: list[Path], place: Path) -> str:
    for image in images:
        fsspec.filesystem("memory").pipe_file(f"/kinds/{image.name}", image.read_bytes())
    return "memory://kinds"


def text(images: list[Path], place: Path) -> str:
    (place / "list.txt").write_text("".join(f"{image}\n" for image in images))
    return str(place / "list.txt")


def csv(images: list[Path], place: Path) -> str:
    (place / "list.csv").write_text("path;id\n" + "".join(f"{image};{row}\n" for row, image in enumerate(images)))
    return str(place / "list.csv")


def manifest(images: list[Path], place: Path) -> str:
    pq.write_table(pa.table({"path": list(map(str, images))}), place / "list.parquet")
    return str(place / "list.parquet")


def table(images: list[Path], place: Path) -> str:
    cells = [{"bytes": image.read_bytes(), "path": image.name} for image in images]
    pq.write_table(pa.table({"image": cells}), place / "table.parquet", row_group_size=2)
    return str(place / "table.parquet")


def shards(images: list[Path], place: Path) -> str:
    for number, image in enumerate(images):
        with tarfile.open(place / f"{number}.tar", "w") as archive:
            info = tarfile.TarInfo(image.name)
            info.size = image.stat().st_size
            archive.addfile(info, io.BytesIO(image.read_bytes()))
    return f"{place}/{{0..{IMAGES - 1}}}.tar"


@pytest.mark.parametrize("kind", [folder, store, text, csv, manifest, table, shards], ids=lambda kind: kind.__name__)
def test_every_kind_of_input_gives_the_same_rows_and_finds_its_images_again(
    kind: Callable[[list[Path], Path], str],
    images: list[Path],
    expected: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = kind(images, tmp_path)
    assert rows(given, tmp_path / "out", monkeypatch).equals(expected)
    monkeypatch.chdir(tmp_path)  # the places hold from anywhere
    results = ortcam.batch.open(tmp_path / "out")
    for explanation in results:
        assert explanation.overlay().shape[:2] == (40, 60)
    report = ortcam.batch.run(bundle_path(), given, tmp_path / "out", method="grad-cam", resume=True)
    assert (report.images, report.skipped) == (0, IMAGES)
