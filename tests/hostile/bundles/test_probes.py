"""Probes that are broken are refused and never run."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import reseal
from tests.hostile.bundles.graphs import CLASSES, refusal

from ortcam.bundle import read_bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.parity import verify, verify_gradient, verify_variants


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickle-was-run",)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(text: bytes, version: bytes = b"\x01\x00") -> bytes:
    size = len(text) + 1
    return b"\x93NUMPY" + version + size.to_bytes(2 if version[0] == 1 else 4, "little") + text + b"\n"


LOGITS = np.load(bundle_path() / "probe-logits.npy")
SHAPE = str(LOGITS.shape).encode()
HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': %b, }"
BROKEN_LOGITS = {
    "pickle": npy(np.array([Trap()], object)),
    "huge shape": npy_header(HEADER % b"(1000000, 1000000, 1000000)"),
    "overflowing shape": npy_header(HEADER % (b"(" + b"9" * 400 + b",)")),
    "negative shape": npy_header(HEADER % b"(-1, 7)"),
    "nested": npy_header(b"(" * 5000, b"\x02\x00"),
    "brackets": npy_header(
        b"{'descr': " + b"[" * 900 + b"]" * 900 + b", 'fortran_order': False, 'shape': ()}", b"\x02\x00"
    ),
    "open text": npy_header(b"{'descr': '<f4"),
    "open bracket": npy_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L,"),
    "expression": npy_header(HEADER % b"(9**9**9,)"),
    "no text": npy_header(b"\x80\x81\xff"),
    "longest header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + HEADER % SHAPE,
    "header beyond the end": b"\x93NUMPY\x01\x00\xff\xff" + HEADER % SHAPE + b"\n",
    "version 9": npy_header(HEADER % SHAPE, b"\x09\x00"),
    "no bytes": b"",
    "magic alone": b"\x93NUMPY",
    "truncated": npy(LOGITS)[:-1],
    "longer": npy(LOGITS) + b"\0",
    "of another type": npy(LOGITS.astype(np.float64)),
    "of another order": npy(LOGITS.astype(">f4")),
    "of another shape": npy(LOGITS.T),
    "structured": npy(np.zeros(3, [("a", "f4")])),
    "texts": npy(np.full(LOGITS.shape, "x")),
    "not a number": npy(np.where(np.arange(CLASSES) == 1, np.nan, LOGITS)),
    "infinite": npy(np.where(np.arange(CLASSES) == 1, np.inf, LOGITS)),
    "archive": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.sample(every=10)
@pytest.mark.parametrize("what", BROKEN_LOGITS)
def test_a_broken_probe_is_refused_and_never_run(
    bundle: Path, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("probe-logits.npy", "probe.npy"):
        shutil.copy(bundle_path() / "probe-logits.npy", bundle / "probe-logits.npy")
        (bundle / name).write_bytes(BROKEN_LOGITS[what])
        reseal(bundle)
        opened = read_bundle(bundle)
        assert name in refusal(lambda opened=opened: verify(opened))
        assert verify_variants(opened) == {}
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.sample(every=5)
@pytest.mark.parametrize("what", BROKEN_LOGITS)
def test_a_broken_record_of_gradients_is_refused(bundle: Path, what: str) -> None:
    (bundle / "probe-gradient.npy").write_bytes(BROKEN_LOGITS[what])
    reseal(bundle)
    assert "probe-gradient.npy" in refusal(lambda: verify_gradient(read_bundle(bundle)))


@pytest.mark.slow
def test_a_good_probe_is_read_as_numpy_reads_it(bundle: Path) -> None:
    expected = verify(read_bundle(bundle_path()))
    for order in (np.ascontiguousarray, np.asfortranarray):
        (bundle / "probe-logits.npy").write_bytes(npy(order(LOGITS)))
        (bundle / "probe.npy").write_bytes(npy(order(np.load(bundle_path() / "probe.npy"))))
        reseal(bundle)
        assert verify(read_bundle(bundle)).logits == expected.logits
