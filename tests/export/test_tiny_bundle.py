"""The bundle in tests/data, which tests of the runtime use, is the one that an export makes today."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tests.common.tiny import TinyNet
from tests.conftest import TINY_BUNDLE, TINY_INPUT

import ortcam
from ortcam.bundle import MANIFEST_NAME
from ortcam_export import export

# What decides of the bytes of a graph.
WRITERS = ("ortcam", "onnx", "onnx-ir", "onnxscript", "torch")
# Of the committed weights. PyTorch draws normal numbers with other last bits on a processor without AVX2.
DRAWN = "e6be31fffc21"


def drawn(module: TinyNet) -> str:
    """The beginning of the hash of a module's weights."""
    content = b"".join(parameter.detach().numpy().tobytes() for parameter in module.parameters())
    return hashlib.sha256(content).hexdigest()[:12]


@pytest.mark.slow
def test_the_committed_bundle_is_what_an_export_makes(tmp_path: Path) -> None:
    """After a change of the export that changes it, `python -m tests.common.tiny` makes it again."""
    module = TinyNet().eval()
    made = export(module, tmp_path / "tiny.ortcam", **TINY_INPUT).path
    new, committed = (json.loads((path / MANIFEST_NAME).read_text("utf-8")) for path in (made, TINY_BUNDLE))
    for manifest in (new, committed):
        del manifest["gradient"]["parity"]
    changing = ("files", "versions", "parity")
    assert {key: new[key] for key in new if key not in changing} == {
        key: committed[key] for key in committed if key not in changing
    }
    assert new["files"].keys() == committed["files"].keys()
    if drawn(module) == DRAWN and all(new["versions"][name] == committed["versions"][name] for name in WRITERS):
        # The logits and gradients of the probe are computed by this processor.
        for name in new["files"].keys() - {"probe-logits.npy", "probe-gradient.npy"}:
            assert (made / name).read_bytes() == (TINY_BUNDLE / name).read_bytes(), name
    picture = np.load(made / "probe.npy")[0]
    ours, theirs = (ortcam.load(path, threads=1).explain(picture, target=[0, 4]) for path in (made, TINY_BUNDLE))
    np.testing.assert_allclose(ours.maps, theirs.maps, rtol=0, atol=1e-5)
