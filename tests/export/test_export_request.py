"""What is checked before PyTorch and ONNX are imported: arguments, destinations, files and names; and what is said."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torchvision
from tests.conftest import REPOSITORY

from ortcam.support.extras import install
from ortcam.support.suggestions import suggestions
from ortcam_export.sources.model_names import check_model, torchvision_names

# Each is refused without torch or onnx_ir; {good} is a folder to write to, {bundle} a bundle that is there.
REFUSED = {
    "export resnet18 -o {bundle}": "a bundle is there already; --force replaces it",
    "export resnet18 -o {good}/no/a.ortcam": "the folder {good}/no does not exist",
    "export resnet18 -o {good}": "exists and is not a bundle",
    "export resnet-18 -o {good}/a.ortcam": "unknown model 'resnet-18'.*did you mean 'resnet18'\\?",
    "export fcn_resnet50 -o {good}/a.ortcam": "fcn_resnet50 is a segmentation model",
    "export resnet18 -o {good}/a.ortcam --labels {good}/none.txt": "none.txt: no such file; accepted is `imagenet`, or",
    "export resnet18 -o {good}/a.ortcam --checkpoint {good}/none.pth": "none.pth: no such checkpoint",
    "export resnet18 -o {good}/a.ortcam --checkpoint {good}": "a folder; accepted is a file with a state dict",
    "export resnet18 -o {good}/a.ortcam --precision fp17": "precision 'fp17'",
    "export resnet18 -o {good}/a.ortcam --precision int8 --calibration {good}/none": "calibration .*does not exist",
    "export resnet18 -o {good}/a.ortcam --input-size 0 4": "input_size=0: accepted is a whole number from 1 to 16384",
    "export resnet18 -o {good}/a.ortcam --mean nan 0 0 --std 1 1 1": "mean=nan: accepted is a number from",
    "export resnet18 -o {good}/a.ortcam --scale 0": "scale=0.0: accepted is a number above 0",
    "export resnet18 -o {good}/a.ortcam --opset 0": "opset=0: accepted is a whole number",
    "export nothing_here.at:all -o {good}/a.ortcam": "No module named 'nothing_here', neither installed nor in",
    "export timm.modelz:resnet18 -o {good}/a.ortcam": "No module named 'timm.modelz'.*did you mean 'models'",
    "export timm.models:resnet81 -o {good}/a.ortcam": "timm.models has no 'resnet81'.*did you mean 'resnet18'",
    "export timm.models:resnet-18 -o {good}/a.ortcam": "did you mean timm.models:resnet18",
    "export {good}/none.onnx -o {good}/a.ortcam": "none.onnx: no such file",
    "export {good}/none.pt2 -o {good}/a.ortcam": "none.pt2: no such file",
    "export {good}/weights.safetensors -o {good}/a.ortcam": "a checkpoint, which holds weights and no model",
    "export model.tflite -o {good}/a.ortcam": "model.tflite: no such file, and no name of a model",
    "inspect efficientnet": "did you mean 'efficientnet_b0', 'efficientnet_b1', 'efficientnet_b2'",
}
SCRIPT = """
import sys
from ortcam.cli import main
for line in sys.stdin.read().splitlines():
    print(line, main(line.split()), file=sys.stderr)
slow = [name for name in ("torch", "torchvision", "timm", "onnx_ir", "onnxscript") if name in sys.modules]
print("imported:", *slow, file=sys.stderr)
"""


def run(script: str, given: str = "") -> str:
    return subprocess.run(
        [sys.executable, "-c", script],
        input=given,
        cwd=REPOSITORY,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    ).stderr


@pytest.mark.slow
def test_errors_that_need_no_model_come_before_what_takes_long_is_imported(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    places = {"good": str(tmp_path), "bundle": str(tiny_bundle)}
    commands = {command.format(**places): message.format(**places) for command, message in REFUSED.items()}
    lines = run(SCRIPT, "\n".join(commands)).splitlines()
    assert lines[-1] == "imported:"
    assert len(lines) == 2 * len(commands) + 1, lines
    for index, (command, message) in enumerate(commands.items()):
        complaint, echo = lines[2 * index : 2 * index + 2]
        assert echo == f"{command} 2"
        assert complaint.startswith("ortcam: ")
        assert re.search(message, complaint), complaint
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.slow
def test_importing_the_package_without_onnx_names_the_extras() -> None:
    script = (
        "import sys\n"
        "sys.modules.update(onnx=None, onnx_ir=None, onnxscript=None)\n"  # importing any raises
        "try: import ortcam_export\n"
        "except ImportError as error: print(error, file=sys.stderr)"
    )
    said = run(script).strip()
    assert said == (
        f"ortcam_export needs onnx, onnx-ir, onnxscript: {install('onnx')} brings what .onnx files need, "
        f"{install('export')} what PyTorch models need, too"
    )


@pytest.mark.slow
def test_a_pytorch_model_without_pytorch_names_its_extra(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules.update(torch=None, torchvision=None)\n"
        "from ortcam.cli import main\n"
        f"main(['export', 'resnet18', '-o', {str(tmp_path / 'a.ortcam')!r}])"
    )
    assert "needs torch and torchvision: pip install torch torchvision" in run(script)


def test_torchvisions_names_are_read_off_its_files() -> None:
    models = torchvision.models
    modules = {
        "classifier": models,
        "detection": models.detection,
        "segmentation": models.segmentation,
        "video": models.video,
        "optical flow": models.optical_flow,
        "quantized": models.quantization,
    }
    names = {name: kind for kind, module in modules.items() for name in models.list_models(module=module)}
    assert dict(torchvision_names()) == names


def test_what_may_be_a_model_passes() -> None:
    for name in ("resnet18", "torchvision.models:resnet18", "onnx:load", "tests.common.tiny:TinyNet"):
        check_model(name)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet-18", "resnet18"),
        ("ResNet 18", "resnet18"),
        ("efficientnet", "efficientnet_b0"),
        ("mobilenetv3", "mobilenet_v3_large"),
        ("vit-base-16", "vit_b_16"),
        ("swin transformer", "swin_"),
        ("resnet81", "resnet18"),
        ("mobilnet_v2", "mobilenet_v2"),
    ],
)
def test_names_are_suggested_by_their_words(name: str, first: str) -> None:
    known = [known for known, kind in torchvision_names().items() if kind == "classifier"]
    assert suggestions(name, known)[0].startswith(first)
    assert suggestions("qqqqq", known) == []
