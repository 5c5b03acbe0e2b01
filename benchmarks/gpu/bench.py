"""What all parts of the study work with: the classifier, the image, the provider."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from numpy.typing import NDArray

LAYER: Final = "layer4"
PATIENCE: Final = 100.0  # seconds, of a process
MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all parts work with.

    Attributes:
        bundle: folder.
        module: the same classifier in PyTorch, on the device.
        image: uint8 RGB.
        provider: "cuda" or "cpu".
        precisions: that the bundle has.
        repeats: timed runs.
        batch_sizes: that are tried.
    """

    bundle: Path
    module: Any
    image: NDArray[np.uint8]
    provider: str
    precisions: tuple[str, ...]
    repeats: int
    batch_sizes: tuple[int, ...]

    @property
    def device(self) -> str:
        """The device as PyTorch calls it."""
        return self.provider

    def load(self, *, precision: str | None = None, **options: object) -> Any:
        """An explainer on the provider, with options of that provider; without a bundle's variants as it comes."""
        import ortcam

        more: dict[str, Any] = {} if precision in (None, "fp32") else {"precision": precision}
        return ortcam.load(self.bundle, providers=[(self.provider, options)], **more)

    def explain(self, explainer: Any, **options: object) -> Any:
        """Score-CAM of the image for class 0; the batch size is the automatic one."""
        return explainer.explain(self.image, **{"method": "scorecam", "target": 0, **options})


def make_image(side: int) -> NDArray[np.uint8]:
    """An image that needs no file: coarse coloured blocks under fine grain, uint8 RGB [side,side,3]."""
    generator = np.random.default_rng(1)
    coarse = generator.integers(0, 200, (-(-side // 16), -(-side // 16), 3)).repeat(16, axis=0).repeat(16, axis=1)
    return (coarse[:side, :side] + generator.integers(0, 56, (side, side, 3))).astype(np.uint8)


def do_without_opencv() -> bool:
    """Stand in for OpenCV where it is missing: preprocessing asks it for one copy, decoding and drawing are not needed.

    Returns:
        Whether it is missing.
    """
    if importlib.util.find_spec("cv2"):
        return False
    stand_in = mock.MagicMock(name="cv2")

    def extract_channel(source: NDArray[Any], channel: int, destination: NDArray[Any]) -> None:
        np.copyto(destination, source[..., channel])

    stand_in.extractChannel = extract_channel
    sys.modules["cv2"] = stand_in
    return True


def make_module(*, quick: bool) -> Any:
    """ResNet-50 with random weights, or a small relative of it."""
    from benchmarks.common.resnet import ResNet

    return ResNet((1, 1, 1, 1), width=4) if quick else ResNet()


def prepare(folder: Path, *, quick: bool, precisions: Sequence[str]) -> Path:
    """Export the classifier."""
    import ortcam_export

    side = 64 if quick else 224
    more: dict[str, Any] = {"precision": list(precisions)} if len(precisions) > 1 else {}
    bundle = ortcam_export.export(
        make_module(quick=quick),
        folder / "resnet.ortcam",
        layer=LAYER,
        input_size=(side, side),
        mean=MEAN,
        std=STD,
        labels=[str(index) for index in range(1000)],
        **more,
    )
    return bundle.path


def in_process(code: str, *arguments: str, **environment: str) -> str:
    """What Python code prints in a process of its own.

    Raises:
        AssertionError: it fails; says with what.
    """
    return in_words([sys.executable, "-c", code, *arguments], **environment)


def in_words(command: Sequence[str], **environment: str) -> str:
    """What a command prints.

    Raises:
        AssertionError: it fails, or takes minutes; says with what.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, **environment}
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    assert done.returncode == 0, f"exit status {done.returncode}: {last}"
    return done.stdout
