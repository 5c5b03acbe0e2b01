"""The part of the zoo that torch's two exporters write: convolutional nets and transformers, batch fixed and open."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
import torchvision
from tests.export.zoo.graphs import CLASSES, HEIGHT, WIDTH, ZooFile
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer


class Plain(nn.Module):
    """Convolutions with batch normalisation, a residual sum, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.classifier = nn.Linear(16, CLASSES)

    def features(self, image: torch.Tensor) -> torch.Tensor:
        x = self.down(self.stem(image))
        return x + self.block(x)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(self.features(image), 1), 1))


class ViewOne(Plain):
    """Its author thought of one image at a time."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.adaptive_avg_pool2d(self.features(image), 1).squeeze()
        return self.classifier(x.view(1, -1)).view(1, -1)


class ViewSize(Plain):
    """The batch goes through the graph as a number."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.adaptive_avg_pool2d(self.features(image), 1)
        return self.classifier(x.view(x.size(0), -1))


class Squeezed(Plain):
    """Pooling, then the axes of size 1 dropped one by one."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(nn.AdaptiveAvgPool2d((1, 1))(self.features(image)).squeeze(-1).squeeze(-1))


class Interpolated(Plain):
    """Its maps are resized to a fixed size inside."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(self.down(self.stem(image)), size=(18, 24), mode="bilinear", align_corners=False)
        x = F.interpolate(self.block(x), scale_factor=2, mode="nearest")
        return self.classifier(self.block(x).mean((2, 3)))


class Gated(Plain):
    """Squeeze and excitation, and its expand_as."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.features(image)
        n, c, _, _ = x.size()
        x = x * self.gate(x.mean((2, 3)).view(n, c)).view(n, c, 1, 1).expand_as(x)
        return self.classifier(self.block(x).mean((2, 3)))


def shufflenet() -> nn.Module:
    return torchvision.models.ShuffleNetV2([2, 1, 1], [8, 16, 32, 48, 64], num_classes=CLASSES)


def densenet() -> nn.Module:
    return torchvision.models.DenseNet(8, (2, 2), 16, bn_size=2, num_classes=CLASSES)


def squeezenet() -> nn.Module:
    return torchvision.models.SqueezeNet("1_1", num_classes=CLASSES)


def transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES)


def swin() -> nn.Module:
    return SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=CLASSES)


def lively(make: Callable[[], nn.Module]) -> nn.Module:
    """A module in eval mode with seeded weights under which the logits of different images differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make().eval()
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=(2 / layer.in_features) ** 0.5)
            elif isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 1.5)
    return module


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The old exporter warns that it is old."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def old(
    folder: Path, make: Callable[[], nn.Module], opset: int, *, batch: str | int = 1, size: tuple[int, int]
) -> ZooFile:
    """By the exporter that traces to TorchScript."""
    path = folder / "net.onnx"
    axes = None if isinstance(batch, int) else {"input": {0: batch}, "output": {0: batch}}
    with quiet():
        torch.onnx.export(
            lively(make),
            (torch.zeros(1 if axes is None else 2, 3, *size),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
        )
    return ZooFile(path, size=size)


def new(
    folder: Path, make: Callable[[], nn.Module], *, batch: str | int = 1, size: tuple[int, int], open_size: bool = False
) -> ZooFile:
    """By the exporter that starts from torch.export; without dynamic_shapes its batch is the example's."""
    path = folder / "net.onnx"
    dim = torch.export.Dim
    axes = {} if isinstance(batch, int) else {0: dim("batch")}
    if open_size:
        axes |= {2: 8 * dim("rows", min=2, max=64), 3: 8 * dim("columns", min=2, max=64)}
    with quiet():
        torch.onnx.export(
            lively(make),
            (torch.zeros(2 if 0 in axes else 1, 3, *size),),
            path,
            dynamo=True,
            dynamic_shapes=(axes,) if axes else None,
            verbose=False,
        )
    return ZooFile(path, size=size, said={"input_size": size} if open_size else {})


_WIDE: Final = (HEIGHT, WIDTH)
_SQUARE: Final = (64, 64)
_SMALL: Final = (32, 32)

FILES: Final[dict[str, Callable[[Path], ZooFile]]] = {
    "torch_old_plain_opset_7": partial(old, make=Plain, opset=7, size=_WIDE),
    "torch_old_plain_opset_9_open_batch": partial(old, make=Plain, opset=9, batch="n", size=_WIDE),
    "torch_old_plain_opset_11": partial(old, make=Plain, opset=11, size=_WIDE),
    "torch_old_plain_opset_17_open_batch": partial(old, make=Plain, opset=17, batch="batch_size", size=_WIDE),
    "torch_old_view_one": partial(old, make=ViewOne, opset=13, size=_WIDE),
    "torch_old_view_size": partial(old, make=ViewSize, opset=11, size=_WIDE),
    "torch_old_view_size_open_batch": partial(old, make=ViewSize, opset=11, batch="n", size=_WIDE),
    "torch_old_squeezed_opset_11": partial(old, make=Squeezed, opset=11, size=_WIDE),
    "torch_old_squeezed_open_batch": partial(old, make=Squeezed, opset=13, batch="n", size=_WIDE),
    "torch_old_interpolated_opset_9": partial(old, make=Interpolated, opset=9, size=_WIDE),
    "torch_old_interpolated_opset_11_open_batch": partial(old, make=Interpolated, opset=11, batch="n", size=_WIDE),
    "torch_old_interpolated_opset_17": partial(old, make=Interpolated, opset=17, size=_WIDE),
    "torch_old_gated": partial(old, make=Gated, opset=13, size=_WIDE),
    "torch_old_gated_open_batch": partial(old, make=Gated, opset=13, batch="n", size=_WIDE),
    "torch_old_shufflenet": partial(old, make=shufflenet, opset=13, size=_SQUARE),
    "torch_old_shufflenet_open_batch": partial(old, make=shufflenet, opset=17, batch="n", size=_SQUARE),
    "torch_old_densenet": partial(old, make=densenet, opset=13, size=_SQUARE),
    "torch_old_squeezenet": partial(old, make=squeezenet, opset=11, size=_SQUARE),
    "torch_old_transformer": partial(old, make=transformer, opset=17, size=_SMALL),
    "torch_old_transformer_opset_14": partial(old, make=transformer, opset=14, size=_SMALL),
    "torch_old_transformer_open_batch": partial(old, make=transformer, opset=17, batch="n", size=_SMALL),
    "torch_old_swin": partial(old, make=swin, opset=17, size=_SQUARE),
    "torch_old_swin_open_batch": partial(old, make=swin, opset=17, batch="n", size=_SQUARE),
    "torch_new_plain": partial(new, make=Plain, size=_WIDE),
    "torch_new_plain_open_batch": partial(new, make=Plain, batch="n", size=_WIDE),
    "torch_new_plain_open_size": partial(new, make=Plain, batch="n", size=_WIDE, open_size=True),
    "torch_new_plain_open_size_of_batch_1": partial(new, make=Plain, size=_WIDE, open_size=True),
    "torch_new_view_one": partial(new, make=ViewOne, size=_WIDE),
    "torch_new_gated": partial(new, make=Gated, size=_WIDE),
    "torch_new_shufflenet": partial(new, make=shufflenet, size=_SQUARE),
    "torch_new_transformer": partial(new, make=transformer, size=_SMALL),
    "torch_new_swin": partial(new, make=swin, size=_SQUARE),
}
