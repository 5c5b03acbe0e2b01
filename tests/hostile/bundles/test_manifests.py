"""Manifests of any other value: each is refused, or does no harm."""

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hostile.bundles.graphs import (
    PICTURE,
    refusal,
)

import ortcam
from ortcam.bundle import MANIFEST_NAME, read_bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.errors import OrtcamError

MANIFEST = json.loads((bundle_path() / MANIFEST_NAME).read_text("utf-8"))


def leaves(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The paths of all entries of a manifest; of the files and labels some, since they are alike."""
    if path:
        yield path
    if isinstance(value, dict):
        entries = list(value.items())
        for key, entry in entries if path not in (("files",), ("graphs", "scorers")) else entries[:2]:
            yield from leaves(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value[:2]):
            yield from leaves(entry, (*path, index))


LEAVES = list(leaves(MANIFEST))
HUGE = 10**4000
VALUES = [
    *(None, True, False, "", "x" * 100_000, "NaN", "\ud800", "\0", "../x", "\x1b[2J", "١"),
    *(0, -1, 1, 2**31, 2**63, 2**64, 10**9, HUGE, -HUGE, 0.5, 1e-45, 1e-300, 1e300, -0.0),
    *([], [[]], [None], [1, 2, 3], [1e-300] * 3, {}, {"": {}}, {"\ud800": "\ud800"}, [{}] * 1000),
]


def holder_of(manifest: Any, path: tuple[object, ...]) -> Any:
    for key in path[:-1]:
        manifest = manifest[key]
    return manifest


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(bundle_path(), tmp_path_factory.mktemp("mutants") / "mutant.ortcam"))


@pytest.fixture(scope="module")
def good(base: Path) -> Iterator[ortcam.Explainer]:
    """Keeps the sessions open that the mutants share."""
    with ortcam.load(bundle_path(), threads=1) as explainer:
        explainer.explain(PICTURE, budget=1, batch_size=1)
        yield explainer


# What explanations are made with; the rest of a manifest is told.
MATTERS = ("labels", "activation", "preprocessing", "cut", "graphs")


def outcome(bundle: Path, text: str | bytes, good: ortcam.Explainer) -> str | None:
    """The refusal of a manifest, or None where all of it works: with numbers, and no answer but the right one."""
    (bundle / MANIFEST_NAME).write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        with np.errstate(all="ignore"):
            mutant = ortcam.load(bundle, threads=1)
            probabilities = mutant.predict(PICTURE)
            manifest, told = mutant.bundle.manifest, good.bundle.manifest
            if any(getattr(manifest, name) != getattr(told, name) for name in MATTERS):
                assert np.isfinite(mutant.explain(PICTURE, budget=1, batch_size=1).maps).all()
    except OrtcamError as error:
        line = str(error)
        line.encode()
        assert "\n" not in line
        assert len(line) < 2000
        return line
    assert probabilities.shape == (len(mutant.labels),)
    assert np.isfinite(probabilities).all()
    if (manifest.preprocessing, manifest.activation) == (told.preprocessing, told.activation):
        np.testing.assert_allclose(probabilities, good.predict(PICTURE), rtol=1e-5, atol=1e-7)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_an_entry_of_any_other_value_is_refused_or_does_no_harm(
    base: Path, good: ortcam.Explainer, path: tuple[object, ...]
) -> None:
    worked = 0
    for value in VALUES:
        manifest = copy.deepcopy(MANIFEST)
        holder_of(manifest, path)[path[-1]] = value
        try:
            text = json.dumps(manifest)
        except ValueError:  # more digits than Python writes by itself
            manifest = copy.deepcopy(MANIFEST)
            holder_of(manifest, path)[path[-1]] = "HUGE"
            text = json.dumps(manifest).replace('"HUGE"', "-" * (value < 0) + "1" + "0" * 4000)
        worked += outcome(base, text, good) is None
    assert worked < len(VALUES)  # nothing at all is accepted for any entry


@pytest.mark.sample(every=6)
@pytest.mark.parametrize("path", [path for path in LEAVES if isinstance(path[-1], str)], ids=str)
def test_an_entry_that_is_missing_or_comes_twice_is_refused(
    base: Path, good: ortcam.Explainer, path: tuple[object, ...]
) -> None:
    manifest = copy.deepcopy(MANIFEST)
    holder = holder_of(manifest, path)
    value = holder.pop(path[-1])
    missing = outcome(base, json.dumps(manifest), good)
    assert missing is not None or path[:-1] in (("versions",), ("files",), ("graphs", "scorers"))
    holder["TWICE"] = holder[path[-1]] = value
    text = json.dumps(manifest).replace('"TWICE"', json.dumps(path[-1]))
    assert "comes twice" in str(outcome(base, text, good))


@pytest.mark.sample(every=5)
@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "{}", "1", '"x"', "{", "[" * 100_000, '{"schema":' * 100_000),
        *(
            '{"schema": ' + value + "}"
            for value in ("3", "1e3", "[" * 500 + "]" * 500, '{"a":' * 400 + "1" + "}" * 400)
        ),
        *('{"schema": 3, "labels": ' + value + "}" for value in ("[" * 90 + "]" * 90, "[" * 300 + "]" * 300)),
        *('{"schema": ' + value + "}" for value in ("9" * 4000, "9" * 5000, "-" + "9" * 4000, "1e999", "NaN")),
        json.dumps(MANIFEST).encode("utf-16"),
        json.dumps(MANIFEST).encode("utf-32"),
        json.dumps(MANIFEST).replace("shuffle", "shu\ud800").encode("utf-8", "surrogatepass"),
        b"\xff\xfe\xfd",
        b"\x80" * 100,
        b" " * (2**23 + 1),
        json.dumps(MANIFEST).encode() + b" " * 2**23,
        b'{"schema": 3, "labels": [' + b"[]," * 500_000 + b"1]}",
        b'{"schema": 3, ' + b"".join(b'"%d":1,' % number for number in range(200_000)) + b'"199999":1}',
    ],
    ids=lambda text: repr(text[:40]),
)
def test_a_text_that_is_no_manifest_is_refused(base: Path, good: ortcam.Explainer, text: str | bytes) -> None:
    assert outcome(base, text, good) is not None


def test_numbers_of_entries_are_bounded(base: Path, good: ortcam.Explainer) -> None:
    name, record = next(iter(MANIFEST["files"].items()))
    many = [
        {"labels": ["x"] * 100_001, "output_shape": [100_001]},
        {"files": MANIFEST["files"] | {f"{number}": record for number in range(1001)}},
        {"graphs": MANIFEST["graphs"] | {"scorers": {f"{number}": name for number in range(101)}}},
        {"versions": {f"{number}": "" for number in range(1001)}},
    ]
    for change in many:
        assert "entries; accepted are" in str(outcome(base, json.dumps(MANIFEST | change), good))


def test_a_schema_error_says_what_is_accepted_in_words(base: Path, good: ortcam.Explainer) -> None:
    assert "labels is 'x'; accepted: a list" in str(outcome(base, json.dumps(MANIFEST | {"labels": "x"}), good))
    assert "opset is 'x'; accepted: a whole number" in str(outcome(base, json.dumps(MANIFEST | {"opset": "x"}), good))
    assert "files is []; accepted: an object" in str(outcome(base, json.dumps(MANIFEST | {"files": []}), good))


@pytest.mark.sample(every=2)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders")
@pytest.mark.parametrize("name", [MANIFEST_NAME, "weights.bin", "head.onnx", "probe.npy"])
def test_what_is_no_regular_file_is_refused(bundle: Path, name: str) -> None:
    for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)):
        if (bundle / name).is_dir() and not (bundle / name).is_symlink():
            (bundle / name).rmdir()
        else:
            (bundle / name).unlink(missing_ok=True)
        make(bundle / name)
        for read in (ortcam.load, read_bundle):
            refusal(lambda read=read: read(bundle))


def test_names_that_no_file_system_takes_are_refused(base: Path, good: ortcam.Explainer) -> None:
    record = MANIFEST["files"]["weights.bin"]
    for name in ("x" * 256, "é" * 200, "a\nb", "a\x7f", "x*", "_ORT_MEM_ADDR_", "a" * 5000):
        assert outcome(base, json.dumps(MANIFEST | {"files": MANIFEST["files"] | {name: record}}), good)
