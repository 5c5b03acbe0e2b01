"""Peak memory at serve time does not grow with the number of channels."""

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
export = pytest.importorskip("ortcam_export").export
nn = torch.nn

HEIGHT = WIDTH = 224
SCRIPT = """
import resource, sys, ortcam
e = ortcam.load(sys.argv[1], threads=1).explain(sys.argv[2], method=sys.argv[3], batch_size=8)
assert e.stats.passes == int(sys.argv[4]), e.stats
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


class Wide(nn.Module):
    """Cheap, with any number of channels: 16 x 16 patches, a 1 x 1 convolution, a linear head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 16, 16)
        self.widen = nn.Conv2d(4, channels, 1)
        self.classifier = nn.Linear(channels, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.widen(self.patches(image)).mean((2, 3)))


def peak_bytes(channels: int, method: str, photograph: Path, folder: Path) -> int:
    torch.manual_seed(0)
    bundle = folder / f"{channels}.ortcam"
    if not bundle.exists():
        unit = (1.0, 1.0, 1.0)
        export(Wide(channels), bundle, input_size=(HEIGHT, WIDTH), mean=unit, std=unit, labels=["a", "b", "c"])
    command = [sys.executable, "-c", SCRIPT, str(bundle), str(photograph), method, str(channels)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.long
@pytest.mark.parametrize("method", ["scorecam", "scorecam++"])
def test_a_hundred_times_the_channels_take_no_more_memory(method: str, photograph: Path, tmp_path: Path) -> None:
    few, many = 32, 3200
    grown = peak_bytes(many, method, photograph, tmp_path) - peak_bytes(few, method, photograph, tmp_path)
    all_masks = (many - few) * HEIGHT * WIDTH * 4  # what holding every mask at image size would take: 636 MB
    assert grown < all_masks / 20
