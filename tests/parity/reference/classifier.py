"""A classifier in float64 with the maps inside it, and what every method does with a map at its end."""

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ortcam.bundle import Cut

# Two float64 numbers closer than this, relative to their size, differ by rounding.
ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A classifier and the maps inside it, both functions of images, float64 [N,3,H,W].

    Attributes:
        maps: -> A, float64 [N,C,h,w].
        logits: head(features(.)), float64 [N,classes].
        dtype: of both; the sums over channels and passes are float64 all the same.
        activation: what makes p of the logits: "softmax" over the classes, the "sigmoid" of each, or nothing
            ("identity").
        altered: the logits of images whose maps, a view of the features, a function alters in place.
    """

    maps: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.float64
    activation: Literal["softmax", "sigmoid", "identity"] = "softmax"
    altered: Callable[[Tensor, Callable[[Tensor], None]], Tensor] | None = None

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of logits, [N,classes]: p, of the same shape."""
        if self.activation == "identity":
            return logits
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)


def at_layer(
    module: nn.Module,
    layer: str,
    to_maps: Callable[[Tensor], Tensor] = lambda features: features,
    *,
    dtype: torch.dtype = torch.float64,
    activation: Literal["softmax", "sigmoid", "identity"] = "softmax",
) -> Classifier:
    """A module in float64, and what its submodule `layer` gives out.

    Args:
        module: image [N,3,H,W] -> logits [N,classes]; it is copied.
        layer: path of the submodule.
        to_maps: the layer's output -> [N,C,h,w].
        dtype: float32 to see what float32 itself costs.
        activation: what makes probabilities of its logits.
    """
    module = copy.deepcopy(module).to(dtype).eval()
    seen: list[Tensor] = []

    def maps(images: Tensor) -> Tensor:
        # A copy: what follows may be an activation in place.
        handle = module.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2].clone()))
        try:
            module(images)
        finally:
            handle.remove()
        return to_maps(seen.pop())

    def logits(images: Tensor) -> Tensor:
        output: Tensor = module(images)
        return output

    last: list[tuple[Tensor, Tensor]] = []

    def altered(images: Tensor, alter: Callable[[Tensor], None]) -> Tensor:
        if not last or last[0][0] is not images:
            handle = module.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2].clone()))
            module(images)
            handle.remove()
            last[:] = [(images, seen.pop())]
        features = last[0][1].clone()
        alter(to_maps(features))
        cut = module.get_submodule(layer)
        cut.forward = lambda *_, **__: features  # in place of all that the layer does
        try:
            output: Tensor = module(images)
        finally:
            del cut.forward
        return output

    return Classifier(maps, logits, dtype, activation, altered)


def at_cut(
    module: nn.Module,
    cut: "Cut",
    *,
    dtype: torch.dtype = torch.float64,
    activation: Literal["softmax", "sigmoid", "identity"] = "softmax",
) -> Classifier:
    """A module in float64, and its maps where a bundle says that it was cut."""
    if cut.module is None:
        raise ValueError(f"{cut.tensor} is the output of no module")
    return at_layer(module, cut.module, maps_of(cut), dtype=dtype, activation=activation)


def maps_of(cut: "Cut") -> Callable[[Tensor], Tensor]:
    """What makes maps [N,C,h,w] of features in the layout of a cut."""
    layouts: dict[str, Callable[[Tensor], Tensor]] = {
        "nchw": lambda features: features,
        "nhwc": lambda features: features.permute(0, 3, 1, 2),
        "tokens": token_maps(cut.prefix_tokens, cut.height, cut.width),
    }
    return layouts[cut.layout]


def token_maps(prefix: int, height: int, width: int) -> Callable[[Tensor], Tensor]:
    """Tokens [N,prefix + h w,C] -> maps [N,C,h,w]."""

    def to_maps(tokens: Tensor) -> Tensor:
        return tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, height, width)

    return to_maps


@dataclasses.dataclass(frozen=True)
class Result:
    """What a method gives for K targets.

    Attributes:
        maps: float64 [K,H,W] in [0,1].
        raw: float64 [K,H,W], the weighted sum before ReLU.
        weights: float64 [K,C].
        flat: bool [K], maps that are flat after ReLU.
        live: bool [C], channels that are not flat.
    """

    maps: Tensor
    raw: Tensor
    weights: Tensor
    flat: Tensor
    live: Tensor


def is_flat(values: Tensor) -> bool:
    return bool(values.max() - values.min() <= ROUNDING * values.abs().max())


def min_max(M: Tensor) -> Tensor:
    return (M - M.min()) / (M.max() - M.min())


def finish(raw: Tensor) -> tuple[Tensor, Tensor]:
    """ReLU and min-max of each map, and which are flat and therefore zero."""
    maps = torch.zeros_like(raw)
    flat = torch.ones(len(raw), dtype=torch.bool)
    for index, positive in enumerate(raw.relu()):
        flat[index] = is_flat(positive)
        if not flat[index]:
            maps[index] = min_max(positive)
    return maps, flat
