"""Graphs on Qualcomm's NPU, which its own library emulates on x86-64: `onnxruntime-qnn`, where it is installed.

The emulation computes what the NPU does: float16 in place of float32. So maps are near the CPU's, not equal to them.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tests.common.images import photograph
from tests.conftest import TINY_BUNDLE
from tests.export.graphs.npu.fixed_bundles import fixed_bundle

import ortcam

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("onnxruntime_qnn") is None,
        reason="onnxruntime-qnn is not installed, whose library emulates the NPU",
    ),
]

# Of float16, relative to the largest value of a map, which is 1: 2^-11 per operation, through a dozen of them.
HALF: float = 12 * 2.0**-11
QNN = ("qnn", {"soc_model": "57"})


@pytest.mark.parametrize("method", ["scorecam", "grad-cam", "recipro-cam"])
def test_an_explanation_on_the_emulated_npu_is_that_of_the_cpu(method: str, tmp_path: Path) -> None:
    bundle = fixed_bundle(TINY_BUNDLE, tmp_path / "tiny.ortcam", 4)
    image = photograph()
    expected = ortcam.load(bundle.path, providers=["cpu"]).explain(image, method=method, target=0)
    found = ortcam.load(bundle.path, providers=[QNN, "cpu"], strict_providers=True).explain(
        image, method=method, target=0
    )
    assert found.stats.providers[0] == "QNNExecutionProvider"
    np.testing.assert_allclose(found.maps, expected.maps, atol=HALF)
