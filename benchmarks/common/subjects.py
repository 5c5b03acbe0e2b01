"""What is measured: the classifiers with their weights, the photographs, and the methods.

Weights and photographs come from the folder that ORTCAM_TEST_DATA names (default: ../shared/data beside the
repository). Classifiers without weights there get random ones from a fixed seed: they take the same time, and their
maps mean nothing. PyTorch is imported where it is used, so that importing this module costs a measured process nothing.
"""

import csv
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import nn

DATA: Final = Path(os.environ.get("ORTCAM_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
RESIZE: Final = 256
SIDE: Final = 224


@dataclasses.dataclass(frozen=True)
class Subject:
    """A classifier.

    Attributes:
        name: torchvision name, or "deit_tiny".
        layer: module path of the maps that all libraries explain.
        large: whether a peer takes minutes for an explanation.
        grid: tokens a side, where the maps are tokens behind one class token.
        note: what a table has to say beside its figures.
    """

    name: str
    layer: str
    large: bool = False
    grid: int | None = None
    note: str = ""

    @property
    def checkpoint(self) -> Path:
        """Where its weights would be."""
        return DATA / "weights" / f"{self.name}.pth.xz"

    @property
    def random(self) -> bool:
        """Whether its weights are random."""
        return not self.checkpoint.is_file()

    def module(self) -> "nn.Module":
        """The classifier with its weights, in eval mode."""
        import lzma

        import torch

        torch.manual_seed(0)
        module = self.empty_module()
        if not self.random:
            with lzma.open(self.checkpoint) as file:
                state = torch.load(file, weights_only=True)
            # Half-precision tensors are cast; folded BatchNorms come without their counter.
            module.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
        return module

    def empty_module(self) -> "nn.Module":
        """The classifier before its weights are loaded, in eval mode."""
        from torchvision import models

        if self.name == "deit_tiny":
            module: nn.Module = models.VisionTransformer(
                image_size=SIDE, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
            )
        else:
            module = models.get_model(self.name, weights=None)
        return module.eval()

    def export(
        self,
        folder: Path,
        *,
        side: int = SIDE,
        module: "nn.Module | None" = None,
        layer: str | None = None,
        **more: Any,
    ) -> Path:
        """Write its bundle into a folder.

        Args:
            folder: that takes the bundle.
            side: of the input; the resize before the crop keeps its proportion.
            module: the classifier where it has been loaded before.
            layer: in the place of the subject's own.
            **more: options of `ortcam_export.export`.
        """
        import ortcam_export

        bundle = ortcam_export.export(
            module or self.module(),
            bundle_path(folder, self.name, side),
            layer=layer or self.layer,
            input_size=(side, side),
            resize=round(side * RESIZE / SIDE),
            mean=MEAN,
            std=STD,
            labels=DATA / "imagenet_classes.json",
            **more,
        )
        return bundle.path


SUBJECTS: Final = {
    subject.name: subject
    for subject in (
        Subject("squeezenet1_1", "features.12"),
        Subject("mobilenet_v2", "features.18"),
        Subject("resnet18", "layer4", note="non-commercial research weights"),
        Subject("deit_tiny", "encoder.layers.encoder_layer_10", grid=14),
        Subject("resnet50", "layer4", large=True),
        Subject("vgg16", "features.29", large=True),
    )
}
# What is compared: methods with their titles. Those that draw samples are measured on fewer models.
METHODS: Final = {"scorecam": "Score-CAM", "sscam": "SS-CAM", "iscam": "IS-CAM"}
DEFAULT_SAMPLES: Final = {"sscam": 35, "iscam": 10}
SAMPLED_MODELS: Final = ("squeezenet1_1", "resnet18")

WITH_WEIGHTS: Final = ("squeezenet1_1", "mobilenet_v2", "resnet18", "deit_tiny")


def bundle_path(folder: Path, name: str, side: int = SIDE) -> Path:
    """Where `Subject.export` writes the bundle of a classifier."""
    return folder / f"{name}-{side}.ortcam"


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A photograph and what is on it.

    Attributes:
        path: of the file.
        target: class index.
        label: name of the class.
    """

    path: Path
    target: int
    label: str


def photographs(count: int | None = None) -> list[Photograph]:
    """All the photographs, or `count` of them at even distances."""
    with (DATA / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = range(len(rows)) if count is None else [index * len(rows) // count for index in range(count)]
    return [
        Photograph(DATA / "images" / row["file"], int(row["class_index"]), row["label"])
        for row in (rows[index] for index in chosen)
    ]


def photograph(name: str) -> Photograph:
    """The photograph of this file name."""
    return next(item for item in photographs() if item.path.name == name)


def missing_data(names: Iterable[str] = (), *, real: bool = False) -> str | None:
    """What to tell a user whose data are not there, or None.

    Args:
        names: of classifiers.
        real: whether their weights have to be there.
    """
    weights: Sequence[Path] = [SUBJECTS[name].checkpoint for name in names] if real else []
    missing = [path for path in (DATA / "images.csv", DATA / "imagenet_classes.json", *weights) if not path.is_file()]
    if not missing:
        return None
    return (
        f"the benchmark needs files that are not here: {', '.join(map(str, missing))}. "
        "Set ORTCAM_TEST_DATA to the folder that has weights/, images/ and images.csv"
    )
