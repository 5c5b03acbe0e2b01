"""A method of a third party in one file that explains: a masked one like any other, a head-only one is refused."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from tests.export.rounding import TINY_MAPS
from tests.runtime.methods.toys import TOYS

import ortcam
from ortcam.errors import OptionError
from ortcam.methods import register, unregister
from ortcam_export import fuse


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    for method in TOYS:
        register(method)
    yield
    for method in TOYS:
        unregister(method.name)


def test_a_registered_masked_method_gives_the_runtimes_map(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    explainer = ortcam.load(tiny_bundle, threads=1)
    fused = fuse(tiny_bundle, tmp_path / "e.onnx", method="toymask", steps=2)
    session = ort.InferenceSession(fused.path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["saliency"], {"image": explainer.preprocess(photograph)})
    expected = explainer.explain(photograph, method="toy-mask", steps=2)
    np.testing.assert_allclose(found, expected.maps, atol=TINY_MAPS)


def test_a_registered_head_only_method_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    message = "toy-head: cannot be fused; accepted is scorecam, .*, grad-cam, .*, toy-mask$"
    with pytest.raises(OptionError, match=message):
        fuse(tiny_bundle, tmp_path / "e.onnx", method="toy-head")
