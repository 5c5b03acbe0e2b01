"""The fuzzer itself: its seeds are read, its changes keep checksums right, and what is wrong becomes a finding."""

import contextlib
import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path
from random import Random

import onnx
import pytest
from google.protobuf.message import DecodeError
from PIL import Image

import ortcam.images.decoding
from ortcam.batch.sources.shards import members
from ortcam.bundle import read_bundle
from ortcam.errors import ImageError
from ortcam.images.reading import read_image
from tests.common.images import encoded, photograph
from tests.fuzz import bundles, graphs, images, manifests, samples, shards
from tests.fuzz.__main__ import replay
from tests.fuzz.limits import BreachError, budget
from tests.fuzz.targets import NAMES, target
from tests.fuzz.worker import CRASHES

needs_atheris = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")


def some_bytes(random):
    """Other bytes, as libFuzzer makes them but from these random numbers."""

    def change(data: bytes, longest: int) -> bytes:
        at = random.randrange(len(data) + 1)
        return (data[:at] + bytes([random.randrange(256)]) + data[at + random.randrange(2) :])[:longest]

    return change


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_target_takes_its_seeds_and_what_is_made_of_them(name: str) -> None:
    tried, random = target(name), Random(5)
    seeds = tried.seeds()
    for seed in seeds:
        assert len(seed) <= tried.longest
        tried.try_on(seed)
    for _ in range(20):
        changed = tried.change(random.choice(seeds), random, some_bytes(random), tried.longest)
        assert len(changed) <= tried.longest
        tried.try_on(changed)


def test_every_format_has_a_seed_that_is_decoded() -> None:
    kinds = set()
    for seed in images.seeds():
        with contextlib.suppress(ImageError):  # of GIF and AVIF, which not every OpenCV reads
            read_image(seed, max_pixels=images.MAX_PIXELS, white=4095)
            kinds.add(Image.open(io.BytesIO(seed)).format)
    assert kinds >= {"JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"}


def test_samples_of_all_kinds_of_models_are_seeds_that_are_read() -> None:
    read = {samples.model_of(seed) for seed in samples.seeds() if samples.is_read(seed)}
    assert len(read) == len({samples.model_of(seed) for seed in samples.seeds()}) == 8


@pytest.mark.slow
def test_the_manifests_of_all_schemas_are_seeds_that_are_read() -> None:
    schemas = [json.loads(seed)["schema"] for seed in manifests.seeds()]
    assert len(set(schemas)) == 5
    for seed in manifests.seeds():
        folder = bundles.put(bundles.write_input("bundle.json", seed))
        if json.loads(seed)["schema"] == 5:
            bundles.use(folder, verified=False)
        else:  # the scorers beside it take scores, which no older manifest says
            assert read_bundle(folder).manifest.graphs.score_terms == ()


def test_a_mended_png_has_the_right_checksums_and_keeps_the_rest() -> None:
    data = bytearray(encoded(photograph(12, 18), "PNG"))
    data[16:20] = (19).to_bytes(4, "big")  # the width
    mended = images.mended(bytes(data) + b"rest")
    assert mended[29:33] == zlib.crc32(mended[12:29]).to_bytes(4, "big")
    assert mended[33:] == bytes(data[33:]) + b"rest"


def test_a_mended_archive_has_the_right_checksums() -> None:
    for seed in shards.seeds():
        assert shards.mended(seed) == seed
        changed = b"1" + seed[1:]  # of the first name
        found = [name for name, _, _ in members(io.BytesIO(shards.mended(changed)), "shard.tar")]
        assert found[0].startswith("1")


def test_a_changed_graph_goes_to_the_runtime_with_its_own_hash() -> None:
    content = bundles.files()["head.onnx"]
    folder = bundles.put(bundles.write_input("head.onnx", content + b"\0"))
    record = json.loads((folder / "bundle.json").read_text())["files"]["head.onnx"]
    assert record == {"size": len(content) + 1, "sha256": hashlib.sha256(content + b"\0").hexdigest()}
    assert (folder / "weights.bin").read_bytes() == bundles.files()["weights.bin"]
    folder = bundles.put(bundles.write_input("bundle.json", b"{}"))
    assert (folder / "head.onnx").read_bytes() == content  # as it was


def test_most_changed_graphs_can_be_read_and_differ() -> None:
    random, seeds = Random(1), graphs.seeds()
    readable = set()
    for _ in range(60):
        name, content = bundles.read_input(graphs.change(seeds[0], random, some_bytes(random), 1 << 17))
        assert name.endswith(".onnx")
        with contextlib.suppress(DecodeError):  # of bytes that were changed one by one
            readable.add(onnx.load_model_from_string(content).SerializeToString())
    assert len(readable) > 30


def test_weights_outside_the_bundle_would_be_a_finding() -> None:
    model = onnx.load_model_from_string(bundles.files()["head.onnx"])
    graphs.add_external(model)
    model.graph.initializer[-1].external_data[0].value = "unlisted.bin"
    with pytest.raises(BreachError, match=r"unlisted\.bin"):
        bundles.check_accepted(model.SerializeToString())
    bundles.check_accepted(bundles.files()["head.onnx"])


@pytest.mark.parametrize("add", [graphs.add_loop, graphs.add_branch, graphs.add_function, graphs.add_sparse])
def test_what_may_run_for_ever_or_read_elsewhere_would_be_a_finding(add) -> None:
    model = onnx.load_model_from_string(bundles.files()["head.onnx"])
    add(model)
    with pytest.raises(BreachError):
        bundles.check_accepted(model.SerializeToString())


@pytest.mark.slow
def test_memory_and_time_beyond_the_budget_are_findings() -> None:
    with pytest.raises(BreachError, match="s of CPU"), budget(seconds=0, memory=1 << 40):
        sum(range(100_000))
    with budget(seconds=60, memory=1 << 30):
        pass
    script = "import numpy as np; from tests.fuzz.limits import budget\nwith budget(seconds=60, memory={}): np.ones({})"
    for memory, values, code in ((50_000_000, 25_000_000, 1), (300_000_000, 25_000_000, 0)):  # which are 200 MB
        command = [sys.executable, "-c", script.format(memory, values)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert ("MB of memory instead of at most 50" in done.stderr) == bool(code)


def test_an_exception_that_is_no_refusal_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(ortcam.images.decoding, "read_header", broken)
    with pytest.raises(IndexError):
        images.try_on(b"\xff\xd8\xff")


@pytest.mark.slow
def test_a_finding_is_tried_again_until_it_is_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / CRASHES / "images"
    folder.mkdir(parents=True)
    (folder / "crash-1").write_bytes(b"no picture")
    assert replay("images", tmp_path) == 0
    (tmp_path / CRASHES / "nothing").mkdir()
    (tmp_path / CRASHES / "nothing" / "crash-1").write_bytes(b"")
    assert replay("nothing", tmp_path) == 1  # there is no such target
    assert "crash-1 still fails: KeyError: 'nothing'" in capsys.readouterr().out


@pytest.mark.slow
def test_an_unknown_target_is_named() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "sounds"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no target sounds; there are images, samples, manifest" in done.stderr


@pytest.mark.long
@needs_atheris
def test_a_second_of_fuzzing_keeps_inputs_and_counts_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "1", "--folder", str(tmp_path), "images"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 findings" in done.stdout
    assert "cov: " in done.stdout
    assert len(list((tmp_path / "corpus" / "images").iterdir())) >= len(images.seeds()) - 2  # equal ones are one
