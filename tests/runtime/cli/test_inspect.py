"""`ortcam inspect`, `--version`, and parity measured again."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import reseal
from tests.runtime.cli.running import complaints, run

import ortcam
from ortcam.bundle import read_bundle
from ortcam.bundle.shipped import bundle_path


@pytest.mark.slow
def test_version_and_inspect(tiny_bundle: Path) -> None:
    assert run("--version").stdout == f"ortcam {ortcam.__version__}\n"
    inspected = run("inspect", tiny_bundle).stdout
    for text in ("maps [10,8,12]", "to 32 x 48", "parity", "scorers linear"):
        assert text in inspected


@pytest.mark.slow
def test_inspect_says_what_is_unusual(tiny_bundle: Path, branch_bundle: Path, bundle_copy: Path) -> None:
    usual = run("inspect", tiny_bundle).stdout
    for text in ("; softmax", "2 pictures", "head(features(x))", "float32"):
        assert text in usual
    for text in ("channels", "scale", "inside a branch"):
        assert text not in usual
    branch = run("inspect", branch_bundle).stdout
    assert (
        "inside a branch: no head of its own, only the whole model; methods that work: scorecam, scorecam++, sscam, "
        "iscam, eigen-cam" in branch
    )
    assert "for the classifier," in branch
    manifest = json.loads((bundle_copy / "bundle.json").read_text("utf-8"))
    manifest["preprocessing"] |= {"channel_order": "bgr", "scale": 255}
    manifest |= {"activation": "sigmoid", "probe": None, "precision": "int8"}
    (bundle_copy / "bundle.json").write_text(json.dumps(manifest))
    unusual = run("inspect", bundle_copy).stdout
    for text in ("channels bgr, scale 255, mean", "; sigmoid", "probe          none", "int8"):
        assert text in unusual


@pytest.mark.slow
def test_inspect_verify_prints_what_was_recorded_and_what_is_measured(tiny_bundle: Path, branch_bundle: Path) -> None:
    for bundle in (tiny_bundle, branch_bundle):
        result = run("inspect", bundle, "--verify")
        assert result.returncode == 0, result.stderr
        assert complaints(result) == []
        recorded = json.loads((bundle / "bundle.json").read_text("utf-8"))["parity"]
        (line,) = (line for line in result.stdout.splitlines() if line.startswith("  recorded"))
        assert f"{recorded['logits']:.1e}" in line
        assert f"{recorded['scorer']:.1e}" in line
        assert sum(line.startswith("  measured") for line in result.stdout.splitlines()) == 1


def altered_hash(bundle: Path) -> None:
    content = bytearray((bundle / "probe.npy").read_bytes())
    content[-1] ^= 1
    (bundle / "probe.npy").write_bytes(content)


def altered_logits(bundle: Path) -> None:
    logits = np.load(bundle / "probe-logits.npy")
    np.save(bundle / "probe-logits.npy", logits * np.float32(1.001))
    reseal(bundle)


def without_probe(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text("utf-8"))
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"probe": None}))


@pytest.mark.sample(every=3)
@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (altered_hash, "probe.npy: altered"),
        (altered_logits, "head(features(x)) differs from the model by"),
        (without_probe, "no probe in this bundle"),
    ],
)
def test_inspect_verify_fails_in_one_line(bundle_copy: Path, alter: Callable[[Path], None], message: str) -> None:
    alter(bundle_copy)
    result = run("inspect", bundle_copy, "--verify")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert message in complaints(result)[0]


@pytest.mark.slow
def test_the_shipped_bundle_verifies_unless_it_is_from_before_probes() -> None:
    result = run("inspect", bundle_path(), "--verify")
    if read_bundle(bundle_path()).manifest.probe is None:
        assert result.returncode == 2
        assert "no probe in this bundle (schema 1)" in complaints(result)[0]
    else:
        assert result.returncode == 0, result.stderr
