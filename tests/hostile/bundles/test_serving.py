"""A loaded bundle: links that are switched under it, an input that does not fit into memory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.conftest import reseal
from tests.hostile.bundles.graphs import PICTURE, head, put, refusal

import ortcam
from ortcam.bundle import MANIFEST_NAME
from ortcam.bundle.shipped import bundle_path

MEMORY = """
import resource, sys
import numpy as np
import ortcam
explainer = ortcam.load(sys.argv[1], threads=1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
try:
    explainer.predict(np.zeros((60, 60, 3), np.uint8))
except ortcam.OutOfMemoryError as error:
    print("refused:", error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_input_that_does_not_fit_into_memory_is_an_error_of_ours(bundle: Path) -> None:
    """As large as a manifest may have it, 0.8 GB, of a graph that takes any size."""
    model = onnx.load(bundle / "features.onnx", load_external_data=False)
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_param = "any"
    put(bundle, model, "features.onnx")
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    for name in bundle.glob("scorer-*.onnx"):
        scorer = onnx.load(name, load_external_data=False)
        for value in (*scorer.graph.input, *scorer.graph.output):
            if len(value.type.tensor_type.shape.dim) > 2:
                value.type.tensor_type.ClearField("shape")
        name.write_bytes(scorer.SerializeToString())
    manifest["preprocessing"] |= {"height": 8192, "width": 8192}
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))
    reseal(bundle)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(bundle)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout.startswith("refused: out of memory: the model's input is 8192 x 8192 pixels"), done.stderr


def test_a_volume_of_kubernetes_is_a_bundle_and_a_switch_under_it_changes_nothing(tmp_path: Path) -> None:
    """Files are links into `..data`, a link to the folder of a version, which is switched."""
    more_classes = head([helper.make_node("Concat", ["x", "x"], ["logits"], axis=1)], shape=None)
    volume = tmp_path / "volume.ortcam"
    volume.mkdir()
    for version in ("..2026_01", "..2026_02"):
        shutil.copytree(bundle_path(), volume / version)
    (volume / "..2026_02" / "head.onnx").write_bytes(more_classes.SerializeToString())
    reseal(volume / "..2026_02")
    (volume / "..data").symlink_to("..2026_01")
    for file in sorted((volume / "..2026_01").iterdir()):
        (volume / file.name).symlink_to(Path("..data", file.name))
    explainer = ortcam.load(volume)
    expected = ortcam.load(bundle_path()).predict(PICTURE)
    (volume / "..new").symlink_to("..2026_02")
    (volume / "..new").replace(volume / "..data")
    np.testing.assert_array_equal(explainer.predict(PICTURE), expected)
    shutil.rmtree(volume / "..2026_01")
    assert np.isfinite(explainer.explain(PICTURE, budget=1, batch_size=1).maps).all()
    refusal(lambda: ortcam.load(volume).predict(PICTURE))
