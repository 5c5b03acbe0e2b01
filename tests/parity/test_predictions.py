"""`ortcam predict` against the models in PyTorch, on what Pillow and torchvision make of the files."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import ortcam
from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.cli import main
from ortcam_export import export
from tests.conftest import REPOSITORY

PARITY = 1e-4  # of the largest logit: what an export may be off by; a probability is off by half of that at most


def predictions(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, object]]:
    assert main(["predict", *map(str, arguments), "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["predictions"]
    return found


def agree(found: dict[str, object], model: torch.nn.Module, path: Path, preprocessing: ortcam.Preprocessing) -> None:
    """The classes printed are those of the model in PyTorch, on what Pillow and torchvision make of the file."""
    transforms = torchvision.transforms
    assert preprocessing.resize is not None
    see = transforms.Compose(
        [
            transforms.Resize(preprocessing.resize),
            transforms.CenterCrop((preprocessing.height, preprocessing.width)),
            transforms.ToTensor(),
            transforms.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )
    with torch.no_grad():
        logits = model(see(Image.open(path).convert("RGB"))[None])[0]
    probabilities = torch.softmax(logits, 0).numpy()
    classes = found["classes"]
    assert isinstance(classes, list)
    tolerance = PARITY * float(logits.abs().max()) / 2
    np.testing.assert_allclose(
        [item["probability"] for item in classes],
        probabilities[[item["index"] for item in classes]],
        rtol=0,
        atol=tolerance,
    )
    assert probabilities.max() - classes[0]["probability"] <= tolerance


def test_the_command_agrees_with_the_shipped_model_in_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=7).eval()
    model.load_state_dict(torch.load(REPOSITORY / "models" / "shapes" / "shapes.pth", weights_only=True))
    for item in predictions(capsys, "shapes", sample_images()[0].parent):
        agree(item, model, Path(item["image"]), ortcam.read_bundle(bundle_path()).manifest.preprocessing)


@pytest.mark.long
def test_the_command_agrees_with_real_weights_in_pytorch(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    checkpoint = data / "weights" / "squeezenet1_1.pth.xz"
    bundle = export("squeezenet1_1", tmp_path / "squeezenet.ortcam", checkpoint=checkpoint)
    model = torchvision.models.squeezenet1_1().eval()
    with lzma.open(checkpoint) as file:
        model.load_state_dict({name: value.float() for name, value in torch.load(file, weights_only=True).items()})
    photographs = sorted((data / "images").glob("*.jpg"))[:8]
    found = predictions(capsys, bundle.path, *photographs)
    assert len(found) == 8
    for item in found:
        agree(item, model, Path(item["image"]), bundle.manifest.preprocessing)
