"""What was loaded and verified is what runs, though the bundle is switched, rewritten or deleted afterwards."""

import copy
import gc
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import reseal

import ortcam
from ortcam.benchmarking import benchmark
from ortcam.bundle import MANIFEST_NAME, Content, open_bundle, read_bundle
from ortcam.bundle.contents import held
from ortcam.bundle.shipped import bundle_path
from ortcam.evaluation.sanity.shuffling import shuffled_bundle
from ortcam.images.encoding import encode_png
from ortcam.parity import verify

# Features, head, and three scorers; a few passes each.
METHODS = {
    "scorecam": {"budget": 4},
    "scorecam++": {"budget": 4},
    "sscam": {"budget": 1, "num_samples": 2},
    "eigen-cam": {},
}
ARGUMENTS = {"batch_size": 4, "top_k": 2, "budget": 4}


def retrained(bundle: Path, seed: int = 0) -> Path:
    """Other weights in the same graphs, sealed as whoever trained them would."""
    weights = np.fromfile(bundle / "weights.bin", np.float32)
    np.random.default_rng(seed).shuffle(weights)
    (bundle / "weights.bin").write_bytes(weights.tobytes())
    reseal(bundle)
    return bundle


def maps_of(explainer: ortcam.Explainer, photograph: Path) -> list[np.ndarray]:
    kept = explainer.read(photograph)
    shared = {"batch_size": 4, "top_k": 2}
    return [explainer.explain(kept, method=method, **shared, **options).maps for method, options in METHODS.items()]


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A folder with v1 and v2, two models of the shipped bundle's graphs; other tests may hold its own weights."""
    retrained(Path(shutil.copytree(bundle_path(), tmp_path / "v1")), seed=1)
    retrained(Path(shutil.copytree(bundle_path(), tmp_path / "v2")))
    return tmp_path


def switch(versions: Path, name: str = "current", to: str = "v2") -> None:
    (versions / "next").symlink_to(to)
    (versions / "next").replace(versions / name)


def rewrite_in_place(versions: Path) -> None:
    for path in (versions / "v2").iterdir():  # as rsync --inplace does
        with (versions / "v1" / path.name).open("r+b") as file:
            file.write(path.read_bytes())
            file.truncate()


def truncate(versions: Path) -> None:
    for path in (versions / "v1").iterdir():
        os.truncate(path, 0)


def delete(versions: Path) -> None:
    shutil.rmtree(versions / "v1")


@pytest.mark.slow
@pytest.mark.parametrize("change", [switch, rewrite_in_place, truncate, delete])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_a_loaded_explainer_is_that_of_the_bundle_it_verified(
    versions: Path, photograph: Path, change: Callable[[Path], None], used: bool
) -> None:
    with ortcam.load(versions / "v1") as explainer:
        expected, sha256 = maps_of(explainer, photograph), explainer.bundle.sha256
    gc.collect()  # so that nothing is shared with what was loaded before
    switch(versions, to="v1")
    explainer = ortcam.load(versions / "current")
    if used:
        explainer.predict(photograph)
    change(versions)
    for found, map_ in zip(maps_of(explainer, photograph), expected, strict=True):
        np.testing.assert_array_equal(found, map_)
    assert explainer.explain(photograph, **ARGUMENTS).provenance["bundle"] == {"name": "v1", "sha256": sha256}


def test_the_working_directory_does_not_matter(
    versions: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(versions)
    explainer, frugal = ortcam.load("v1"), ortcam.load(Path("v1"), low_memory=True)
    monkeypatch.chdir("/")
    assert explainer.bundle.path == versions / "v1"
    assert explainer.explain(photograph, **ARGUMENTS).maps.any()
    assert frugal.predict(photograph).any()
    assert pickle.loads(pickle.dumps(explainer)).predict(photograph).any()


def test_with_little_memory_a_changed_bundle_is_one_clear_error(versions: Path, photograph: Path) -> None:
    """There nothing is kept for sessions that are still to be opened."""
    explainer = ortcam.load(versions / "v1", low_memory=True)
    explainer.predict(photograph)
    rewrite_in_place(versions)
    with pytest.raises(ortcam.BundleError, match=r"the bundle has changed since it was loaded: .*altered"):
        explainer.explain(photograph, **ARGUMENTS)


@pytest.mark.slow
def test_each_file_is_read_once_at_load(versions: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    real = Path.open

    def opened(path: Path, *given: object, **named: object) -> object:
        if path.parent == versions / "v1" and path.name != MANIFEST_NAME:
            read.append(path.name)
        return real(path, *given, **named)

    monkeypatch.setattr(Path, "open", opened)
    explainer = ortcam.load(versions / "v1")
    assert sorted(read) == sorted(explainer.bundle.manifest.files)
    maps_of(explainer, photograph)
    assert len(read) == len(explainer.bundle.manifest.files)


def test_an_altered_file_is_noticed_while_another_explainer_holds_the_right_one(versions: Path) -> None:
    holding = ortcam.load(versions / "v1")
    shutil.copytree(versions / "v1", versions / "altered")
    content = bytearray((versions / "altered" / "weights.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (versions / "altered" / "weights.bin").write_bytes(content)
    for open_ in (ortcam.load, read_bundle):
        with pytest.raises(ortcam.BundleError, match=r"weights\.bin: altered"):
            open_(versions / "altered")
    assert holding.bundle.manifest.files["weights.bin"].size == len(content)


@pytest.mark.slow
def test_equal_weights_are_in_memory_once_and_go_with_the_last_explainer(versions: Path) -> None:
    shutil.copytree(versions / "v1", versions / "copy")
    first, second = ortcam.load(versions / "v1"), ortcam.load(versions / "copy")
    sha256 = first.bundle.manifest.files["weights.bin"].sha256
    assert sum(type(one) is Content and one.sha256 == sha256 for one in gc.get_objects()) == 1
    first.close()
    assert held(sha256) is not None
    del second
    gc.collect()
    assert held(sha256) is None


def test_what_a_precision_does_not_need_is_not_kept(bundle_copy: Path) -> None:
    folder = bundle_copy
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    scorers = {}
    shutil.copy(folder / "weights.bin", folder / "weights-fp16.bin")
    for kind, name in manifest["graphs"]["scorers"].items():
        scorers[kind] = name.replace(".onnx", "-fp16.onnx")
        graph = onnx.load(folder / name, load_external_data=False)
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "weights-fp16.bin"
        (folder / scorers[kind]).write_bytes(graph.SerializeToString())
    likeness = {"pearson_mean": 1.0, "pearson_min": 1.0, "spearman_mean": 1.0, "spearman_min": 1.0}
    fidelity = {"images": 1, "held_out": True, "channels": 1, "top1": 1.0, "maps": {"scorecam": likeness}}
    variant = {"scorers": scorers, "parity": 0.0, "tolerance": 1.0, "calibration": None, "fidelity": fidelity}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest | {"variants": {"float16": variant}}))
    reseal(folder)
    own = {manifest["graphs"]["features"], manifest["graphs"]["head"], manifest["gradient"]["graph"], "weights.bin"}
    held = set(open_bundle(folder)[1])
    assert held == own | {*manifest["graphs"]["scorers"].values()}
    other = set(open_bundle(folder, "fp16")[1])
    assert other == own | {*scorers.values(), "weights-fp16.bin"}


def test_verifying_measures_what_was_read(versions: Path) -> None:
    bundle = read_bundle(versions / "v1")
    rewrite_in_place(versions)
    with pytest.raises(ortcam.BundleError, match="the bundle has changed since it was loaded"):
        verify(bundle)


def test_a_copy_with_shuffled_weights_is_made_of_what_was_read(versions: Path) -> None:
    bundle = read_bundle(versions / "v1")
    rewrite_in_place(versions)
    with pytest.raises(ortcam.BundleError, match="the bundle has changed since it was loaded"):
        shuffled_bundle(bundle, versions / "shuffled", 1.0, seed=0)


@pytest.mark.slow
def test_a_fused_file_is_made_of_what_was_read(versions: Path) -> None:
    fuse = pytest.importorskip("ortcam_export").fuse
    bundle = read_bundle(versions / "v1")
    before = fuse(bundle, versions / "before.onnx", budget=2)
    rewrite_in_place(versions)
    with pytest.raises(ortcam.BundleError, match="the bundle has changed since it was loaded"):
        fuse(bundle, versions / "after.onnx", budget=2)
    assert not (versions / "after.onnx").exists()
    assert before.metadata["ortcam.bundle_sha256"] == bundle.sha256


@pytest.mark.slow
def test_a_benchmark_measures_one_bundle(versions: Path, photograph: Path) -> None:
    switch(versions, to="v1")
    before = read_bundle(versions / "v1").sha256
    report = benchmark(
        versions / "current",
        photograph,
        methods=["scorecam", "scorecam++"],
        batch_sizes=[4],
        runs=1,
        seconds=0.1,
        progress=lambda *_: switch(versions) if (versions / "current").readlink() != Path("v2") else None,
    )
    assert report.bundle["sha256"] == before


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_a_copy_or_a_pickle_explains_alike(
    tiny_bundle: Path, photograph: Path, how: Callable[[object], ortcam.Explainer], used: bool
) -> None:
    explainer = ortcam.load(tiny_bundle, threads=1, max_pixels=12_000, providers=["cpu"])
    if used:
        maps_of(explainer, photograph)
    other = how(explainer)
    for one, two in zip(maps_of(explainer, photograph), maps_of(other, photograph), strict=True):
        np.testing.assert_array_equal(one, two)
    assert other.explain(photograph, **ARGUMENTS).provenance["threads"] == 1
    with pytest.raises(ortcam.ImageError):
        other.predict(encode_png(np.zeros((200, 100, 3), np.uint8)))
    explainer.close()
    assert other.predict(photograph).any()


@pytest.mark.slow
def test_a_deep_copy_needs_no_folder(versions: Path, photograph: Path) -> None:
    explainer = ortcam.load(versions / "v1")
    expected = maps_of(explainer, photograph)
    delete(versions)
    for one, two in zip(expected, maps_of(copy.deepcopy(explainer), photograph), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("low_memory", [False, True])
def test_a_pickle_is_a_reference_that_is_verified_again(versions: Path, photograph: Path, low_memory: bool) -> None:
    explainer = ortcam.load(versions / "v1", low_memory=low_memory)
    expected = explainer.predict(photograph)
    stored = pickle.dumps(explainer)
    assert len(stored) < 2000
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).predict(sys.argv[1]).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", script, str(photograph)], input=stored, capture_output=True, check=True
    )
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-6)
    rewrite_in_place(versions)
    with pytest.raises(ortcam.BundleError, match="changed since the explainer was pickled"):
        pickle.loads(stored)
    delete(versions)
    with pytest.raises(ortcam.BundleError, match="there is no such folder"):
        pickle.loads(stored)


def test_a_closed_explainer_says_so(tiny_bundle: Path, photograph: Path) -> None:
    with ortcam.load(tiny_bundle) as explainer:
        expected = explainer.explain(photograph, **ARGUMENTS)
        kept = explainer.read(photograph)
    uses: list[Callable[[], object]] = [
        lambda: explainer.explain(photograph),
        lambda: explainer.explain(kept, method="eigen-cam"),
        lambda: next(explainer.explain_iter(photograph)),
        lambda: next(explainer.explain_many([photograph])),
        lambda: explainer.predict(kept),
        lambda: explainer.features(kept),
        lambda: explainer.logits(1, lambda _: kept.model_input),
        lambda: explainer.read(photograph),
        lambda: explainer.preprocess(photograph),
        lambda: explainer.providers,
        lambda: pickle.dumps(explainer),
        lambda: copy.deepcopy(explainer),
        explainer.__enter__,
    ]
    for use in uses:
        with pytest.raises(ortcam.ClosedError, match="this explainer is closed"):
            use()
    assert issubclass(ortcam.ClosedError, ortcam.OrtcamError)
    assert explainer.labels
    explainer.close()  # again is no error
    np.testing.assert_array_equal(
        ortcam.load(tiny_bundle).explain(photograph, **ARGUMENTS).maps,
        expected.maps,
    )


@pytest.mark.parametrize("location", ["../outside.bin", "{absolute}", "unlisted.bin", "sub/../../outside.bin"])
def test_weights_come_from_listed_files_alone(versions: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a graph says they lie: not in the bundle's folder, not in the working directory, not elsewhere."""
    bundle, outside = versions / "v1", versions / "outside.bin"
    for place in (outside, bundle / "unlisted.bin", versions / "unlisted.bin"):
        shutil.copy(bundle / "weights.bin", place)
    graph = onnx.load(bundle / "features.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location.format(absolute=outside)
    (bundle / "features.onnx").write_bytes(graph.SerializeToString())
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    content = (bundle / "features.onnx").read_bytes()
    manifest["files"]["features.onnx"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))
    monkeypatch.chdir(versions)
    with pytest.raises(ortcam.BundleError, match=r"features\.onnx: tensor .* is not one of the bundle's files"):
        ortcam.load(bundle)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "[" * 100_000])
def test_a_manifest_holds_finite_numbers_and_no_endless_brackets(bundle_copy: Path, text: str) -> None:
    path = bundle_copy / MANIFEST_NAME
    path.write_text(path.read_text().replace('"opset": ', f'"opset": {text}, "was": ', 1))
    with pytest.raises(ortcam.BundleError, match="not JSON"):
        ortcam.load(bundle_copy)
