"""What an export measures of the model itself: the logits of the probe, which must be finite."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT

import ortcam
from ortcam.bundle import read_bundle
from ortcam.parity import probe_input, read_probe
from ortcam_export import ExportError, export


def test_the_probe_holds_pictures_and_the_logits_of_the_model_itself(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    pictures, logits = read_probe(bundle)
    assert pictures.shape == (bundle.manifest.parity.inputs, 32, 48, 3)
    assert pictures.dtype == np.uint8
    explainer = ortcam.load(tiny_bundle)
    images = np.concatenate([explainer.preprocess(picture) for picture in pictures])
    with torch.inference_mode():
        expected = TinyNet().eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(pictures.reshape(-1)) > 128, "pictures, not a flat colour"
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 8, "two of them"


@pytest.mark.slow
def test_the_probe_is_preprocessed_as_the_manifest_says(tmp_path: Path) -> None:
    said = TINY_INPUT | {"mean": (104, 117, 123), "std": (1, 2, 3), "channel_order": "bgr", "scale": 255.0}
    bundle = export(TinyNet().eval(), tmp_path / "bgr.ortcam", resize=40, **said)
    pictures, logits = read_probe(bundle)
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).flip(1).float()
    images = (pixels - torch.tensor([104, 117, 123])[:, None, None]) / torch.tensor([1, 2, 3])[:, None, None]
    np.testing.assert_array_equal(probe_input(pictures, bundle.manifest.preprocessing), images.numpy())
    with torch.inference_mode():
        expected = TinyNet().eval()(images).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_model_whose_logits_are_not_finite_is_not_exported(tmp_path: Path, value: float) -> None:
    module = TinyNet().eval()
    module.classifier.bias.data[1] = value
    with pytest.raises(ExportError, match="logits are not finite"):
        export(module, tmp_path / "bad.ortcam", **TINY_INPUT)
    assert not [*tmp_path.iterdir()]
