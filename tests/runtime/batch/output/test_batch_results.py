"""Results read back: explanations that draw themselves, failures, tables; from a folder and from memory."""

import dataclasses
import json
import pickle
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from tests.common.batches import same
from tests.conftest import REPOSITORY

import ortcam.batch
from ortcam.batch import Results
from ortcam.batch.items import FilePlace, address
from ortcam.batch.output.index import Index
from ortcam.batch.output.parts import Output, PartWriter
from ortcam.batch.output.rows import Row, full_shape, map_shape, schema
from ortcam.batch.output.stored import recorded
from ortcam.errors import ImageError, OptionError, OutputError
from ortcam.explainer import Explainer, load
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.request import ExplainRequest
from ortcam.results.explanation import Explanation
from ortcam.results.low_resolution import low_resolution
from ortcam.results.saved import read_manifest
from ortcam.scoring.upsampling import upsample

TINY = REPOSITORY / "tests" / "data" / "tiny.ortcam"
ARGUMENTS: dict[str, Any] = {"method": "scorecam", "top_k": 2}


@pytest.fixture(scope="module")
def explainer() -> Iterator[Explainer]:
    with load(TINY, threads=1) as opened:
        yield opened


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three photographs, of which the second is none."""
    folder = tmp_path / "in"
    folder.mkdir()
    samples = sorted((REPOSITORY / "models" / "shapes" / "samples").glob("*.png"))
    shutil.copy(samples[0], folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")
    shutil.copy(samples[1], folder / "c.png")
    return folder


def write(
    explainer: Explainer, images: Path, place: str, *, full: bool = False, overlays: bool = False, **arguments: Any
) -> dict[str, Explanation]:
    """What a run writes: two parts of two and one images; and the explanations that they hold."""
    manifest = explainer.bundle.manifest
    request = ExplainRequest.of(**arguments).for_bundle(manifest)
    shape = map_shape(manifest, request)
    fingerprint = {
        "bundle": explainer.bundle.sha256,
        **request.record(),
        "batch_size": 1,
        "precision": "float32",
        "max_pixels": DEFAULT_MAX_PIXELS,
        "white": None,
        "strict": False,
        "maps": "full" if full else "low",
        "map_shape": shape,
        "overlays": {"format": "jpeg"} if overlays else "none",
    }
    output = Output(place)
    notes = {"ortcam": "1", "onnxruntime": "2", "providers": ["CPUExecutionProvider"], "threads": 1}
    output.begin(
        {"fingerprint": fingerprint, "explanation": recorded(explainer.bundle, request), **notes}, resume=False
    )
    kinds = schema(fingerprint, shape, full_shape(manifest) if full else None, overlays=overlays)
    writer, found = PartWriter(output, kinds), {}
    for path in sorted(images.iterdir()):
        where = address(FilePlace(str(path)))
        try:
            explanation = found[path.name] = explainer.explain(path, batch_size=1, **arguments)
        except ImageError as error:
            writer.add([Row(path.name, where, error=str(error))])
            writer.flush()
            continue
        errors = explanation.stats.estimated_error
        low = low_resolution(explanation).astype(np.float16)
        writer.add(
            [
                Row(
                    path.name,
                    where,
                    target,
                    explanation.labels[k],
                    float(explanation.probabilities[k]),
                    low[k],
                    explanation.maps[k].astype(np.float16) if full else None,
                    b"\xff\xd8" if overlays else None,
                    None if errors is None else errors[k],
                    explanation.stats.passes,
                    explanation.stats.seconds,
                )
                for k, target in enumerate(explanation.targets)
            ]
        )
    writer.flush()
    output.close()
    return found


@pytest.fixture(params=["folder", pytest.param("memory", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    name = f"/{uuid.uuid4().hex}"
    yield f"memory:/{name}" if request.param == "memory" else str(tmp_path / "out")
    memory = fsspec.filesystem("memory")
    if memory.exists(name):
        memory.rm(name, recursive=True)


def test_explanations_come_back_with_what_was_known(explainer: Explainer, images: Path, place: str) -> None:
    wanted = write(explainer, images, place, **ARGUMENTS)
    results = ortcam.batch.open(place)
    assert len(results) == 2
    assert list(results.ids()) == ["a.png", "c.png"]
    assert [found.id for found in results] == ["a.png", "c.png"]
    for found in results:
        same = wanted[found.id]
        assert (found.method, found.title, found.options) == (same.method, same.title, same.options)
        assert (found.targets, found.labels) == (same.targets, same.labels)
        np.testing.assert_array_equal(found.probabilities, same.probabilities)
        np.testing.assert_array_equal(found.raw_maps, low_resolution(same).astype(np.float16))
        np.testing.assert_array_equal(found.image, same.image)
        assert (found.maps.shape, found.maps.dtype) == (same.maps.shape, same.maps.dtype)
        assert found.cells == same.cells
        np.testing.assert_array_equal(found.flat, same.flat)
        for name in ("passes", "precision", "providers", "batch_size", "channels"):
            assert getattr(found.stats, name) == getattr(same.stats, name)
        assert "channels" not in repr(found.stats)
        told = found.summary()["stats"]  # no count that the rows do not have
        assert told["passes"] == same.stats.passes
        assert not {"live_channels", "scored_channels", "energy_covered"} & set(told)
        for name in ("limits", "bundle", "model", "cut", "layers", "activation", "preprocessing"):
            assert json.dumps(found.summary()[name]) == json.dumps(same.summary()[name]), name
        assert found.provenance["image"] == {
            "path": str(images / found.id),
            "sha256": same.provenance["image"]["sha256"],
        }


@pytest.mark.slow
def test_explanations_draw_and_save_themselves(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    write(explainer, images, str(tmp_path / "out"), **ARGUMENTS)
    for found in list(ortcam.batch.open(tmp_path / "out"))[:1]:
        assert found.overlay().shape == found.image.shape
        assert found.overlay(found.labels[1]).shape == found.image.shape
        assert found.sheet().ndim == 3
        assert found.heatmap(1).shape == (*found.maps.shape[1:], 3)
        assert "<img" in (found._repr_html_() or "")
        saved = found.save(tmp_path / "saved" / found.id)
        manifest = read_manifest(saved)
        assert manifest is not None
        assert manifest["image"] == found.provenance["image"]
        assert repr(found).startswith(f"<StoredExplanation '{found.id}': scorecam of '{found.labels[0]}'")


def test_full_maps_are_those_of_explain_in_float16(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    wanted = write(explainer, images, str(tmp_path / "out"), full=True, **ARGUMENTS)
    for found in ortcam.batch.open(tmp_path / "out"):
        np.testing.assert_array_equal(found.maps, wanted[found.id].maps.astype(np.float16))


def test_maps_of_few_cells_are_those_of_explain_where_no_sum_is_negative(
    explainer: Explainer, images: Path, tmp_path: Path
) -> None:
    """ReLU before upsampling then changes nothing. Each cell is off by half a unit of float16 below 1, 2^-12."""
    wanted = write(explainer, images, str(tmp_path / "out"), method="layer-cam")
    for found in ortcam.batch.open(tmp_path / "out"):
        same = wanted[found.id]
        assert same.raw_maps.min() >= 0  # LayerCAM behind a ReLU
        upsampled = upsample(found.raw_maps.astype(np.float64), *found.maps.shape[1:])
        # Min-max moves a value by its own error and by those of both ends, and divides by the range.
        np.testing.assert_allclose(found.maps, same.maps, rtol=0, atol=3 * 2.0**-12 / float(np.ptp(upsampled)))


def test_an_explanation_is_found_by_its_id(explainer: Explainer, images: Path, place: str) -> None:
    write(explainer, images, place, **ARGUMENTS)
    results = Results(place)
    assert results["c.png"].targets == list(results)[1].targets
    assert "a.png" in results
    assert "b.png" not in results
    assert 3 not in results
    with pytest.raises(ImageError, match="no image"):
        results["b.png"]
    with pytest.raises(OptionError, match=r"id 'd\.png': is not in"):
        results["d.png"]


def test_failures_say_why(explainer: Explainer, images: Path, place: str) -> None:
    write(explainer, images, place, **ARGUMENTS)
    (failure,) = ortcam.batch.open(place).failures()
    assert (failure.id, failure.path) == ("b.png", str(images / "b.png"))
    assert "b.png" in failure.error


def test_rows_come_as_a_table_and_as_a_dataset(explainer: Explainer, images: Path, place: str) -> None:
    write(explainer, images, place, overlays=True, full=True, **ARGUMENTS)
    results = ortcam.batch.open(place)
    table = results.table()
    assert table.num_rows == 5
    assert table.schema.equals(results.dataset().schema, check_metadata=True)
    assert results.table(["id", "target"]).column_names == ["id", "target"]
    with pytest.raises(OptionError, match="column 'nosuch': accepted is one of id, path"):
        results.table(["nosuch"])
    assert [found.overlays for found in results] == [(b"\xff\xd8", b"\xff\xd8")] * 2
    assert results.metadata["fingerprint"]["method"] == "scorecam"
    assert repr(results) == f"<Results of scorecam in {place}: 2 parts>"


def test_an_output_without_parts_has_no_rows_and_the_same_columns(
    explainer: Explainer, images: Path, place: str, tmp_path: Path
) -> None:
    write(explainer, images, str(tmp_path / "other"), full=True, overlays=True, **ARGUMENTS)
    record = Output(tmp_path / "other").record()
    assert record is not None
    output = Output(place)
    output.begin(record, resume=False)
    output.close()
    results = ortcam.batch.open(place)
    assert (len(results), list(results), list(results.failures())) == (0, [], [])
    assert same(results.table(), ortcam.batch.open(tmp_path / "other").table().slice(0, 0))


def test_a_photograph_that_is_gone_stops_the_drawing_alone(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    write(explainer, images, str(tmp_path / "out"), **ARGUMENTS)
    (images / "a.png").unlink()
    found = ortcam.batch.open(tmp_path / "out")["a.png"]
    assert found.maps.max() == 1
    assert found.heatmap().shape == (*found.maps.shape[1:], 3)
    with pytest.raises(ImageError, match=r"a\.png"):
        found.overlay()


def test_explanations_can_be_pickled_and_still_draw_themselves(
    explainer: Explainer, images: Path, tmp_path: Path
) -> None:
    write(explainer, images, str(tmp_path / "out"), **ARGUMENTS)
    found = ortcam.batch.open(tmp_path / "out")["a.png"]
    again = pickle.loads(pickle.dumps(found))
    assert (again.id, again.labels) == (found.id, found.labels)
    assert np.array_equal(again.raw_maps, found.raw_maps)
    assert np.array_equal(again.overlay(), found.overlay())


def test_where_no_batch_was_written_nothing_opens(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no output"):
        ortcam.batch.open(tmp_path / "nosuch")
    with pytest.raises(OutputError, match="there is no output"):
        ortcam.batch.open(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(OutputError, match=r"has no _batch\.json"):
        ortcam.batch.open(tmp_path)


def test_rows_of_another_format_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "_batch.json").write_text('{"format": 2, "fingerprint": {}}')
    with pytest.raises(OutputError, match="rows of format 2, and this ortcam reads format 1"):
        ortcam.batch.open(tmp_path)


@pytest.mark.sample("cut")
@pytest.mark.parametrize("gone", ["preprocessing", "title", "cut"])
def test_a_record_that_lacks_something_still_gives_a_table(
    gone: str, explainer: Explainer, images: Path, tmp_path: Path
) -> None:
    write(explainer, images, str(tmp_path / "out"), **ARGUMENTS)
    path = tmp_path / "out" / "_batch.json"
    record = json.loads(path.read_text())
    del record["explanation"][gone]
    path.write_text(json.dumps(record))
    results = ortcam.batch.open(tmp_path / "out")
    assert results.table().num_rows == 5
    with pytest.raises(OutputError, match=f"lacks what .*{gone}"):
        next(iter(results))


def test_an_index_finds_the_part_of_each_of_many_ids() -> None:
    parts = [pa.array([f"{part}/{number}" for number in range(100)]) for part in range(10)]
    index = Index(iter(parts))
    assert len(index) == 1000
    assert all(list(index.places(f"{part}/{number}")) == [part] for part in range(10) for number in range(100))
    assert list(index.places("10/0")) == []
    assert len(Index([])) == 0
    assert list(Index([]).places("a")) == []


def test_the_record_is_of_the_finest_layer_of_the_method(explainer: Explainer) -> None:
    bundle = explainer.bundle
    early = dataclasses.replace(bundle.manifest.cut, module="early", height=16, width=24)
    several = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, layers=(early,)))
    fused = recorded(several, ExplainRequest.of(method="layer-cam").for_bundle(several.manifest))
    assert (fused["cut"]["height"], fused["layers"][-1]) == (16, "early")
    plain = recorded(several, ExplainRequest.of(method="grad-cam").for_bundle(several.manifest))
    assert plain["cut"]["height"] == bundle.manifest.cut.height
