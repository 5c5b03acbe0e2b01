"""PyTorch's autograd at the cut of a module: the module runs, and at the cut it goes on with features that are given.

The exported graph knows a tensor by a name that the module need not have. So the tensor is found by its values: one
that a function of PyTorch returns and that equals the features, laid out in any way. Several may equal them, as those
in front of a block that starts as an identity and behind it.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from ortcam_export.sources.pytorch.library_modules import attention_in_steps

__all__ = ["ModuleGradients"]

_CANDIDATES: Final = 8
# How far the module's own tensor may be from that of the graph, relative to the largest.
_SAME: Final = 1e-3


class ModuleGradients:
    """Gradients of a module's seeded logits with respect to a tensor inside it.

    Args:
        module: in eval mode; images [N,C,H,W] to logits [N,classes]. It stays as it is.
        images: float32 [N,C,H,W], as the module takes them.
    """

    def __init__(self, module: torch.nn.Module, images: NDArray[np.float32]) -> None:
        self._module = module
        self._images = images

    def __call__(
        self,
        index: int,
        features: NDArray[np.float32],
        point: NDArray[np.float32],
        seeds: NDArray[np.float64],
        logits: NDArray[np.float32],
    ) -> Iterator[NDArray[np.float32]]:
        """Compute the gradients at a point.

        Args:
            index: of the image.
            features: float32 [1,...], those of the image, in the layout of the cut.
            point: float32 [1,...], with which the module goes on in place of them.
            seeds: float64 [K,classes].
            logits: float32 [1,classes], those of the bundle's graphs at the point.

        Yields:
            float32 [K,...] for each tensor that equals the features, in the order in which the module makes them; those
            that do not lead to these logits are left out.
        """
        for earlier in range(_CANDIDATES):
            finder = _Finder(torch.from_numpy(np.array(features)), torch.from_numpy(np.array(point)), earlier)
            image = torch.from_numpy(self._images[index : index + 1])
            with torch.enable_grad(), attention_in_steps(self._module), finder:
                given: object = self._module(image)
            leaf = finder.found()
            if leaf is None:
                return
            if not isinstance(given, torch.Tensor) or not given.requires_grad or tuple(given.shape) != logits.shape:
                continue
            if not _near(given.detach(), torch.from_numpy(logits)):
                continue
            sums = [(given[0] * torch.from_numpy(seed.astype(np.float32))).sum() for seed in seeds]
            rows = [_gradient(total, leaf) for total in sums]
            known = [row.permute(finder.order).numpy()[0] for row in rows if row is not None]
            if len(known) == len(seeds):
                yield np.stack(known)


def _gradient(total: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor | None:
    torch.autograd.backward([total], retain_graph=True, inputs=[leaf])
    found, leaf.grad = leaf.grad, None
    return found


class _Finder(TorchFunctionMode):
    """Replaces a tensor that equals the wanted one, in any order of its axes, by a leaf that is the point.

    Args:
        wanted: float32 [1,...].
        point: of the same shape.
        earlier: how many tensors that equal the wanted one are left as they are.

    Attributes:
        order: of the leaf's axes, which gives the layout of the wanted tensor.
    """

    def __init__(self, wanted: torch.Tensor, point: torch.Tensor, earlier: int) -> None:
        super().__init__()
        self._wanted, self._point, self._earlier = wanted, point, earlier
        self._leaf: torch.Tensor | None = None
        self.order: tuple[int, ...] = ()

    def found(self) -> torch.Tensor | None:
        """The leaf that took the place of the tensor; None if there was no such tensor."""
        return self._leaf

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and look at what it returns."""
        made = func(*args, **(kwargs or {}))
        if self._leaf is not None or not isinstance(made, torch.Tensor) or made.dtype != torch.float32:
            return made
        order = self._order_of(made.detach())
        if order is None:
            return made
        if self._earlier:
            self._earlier -= 1
            return made
        back = tuple(int(axis) for axis in np.argsort(order))
        self.order = order
        self._leaf = self._point.permute(back).clone(memory_format=torch.contiguous_format).requires_grad_()
        return self._leaf.clone()  # of a leaf itself nothing could be changed in place

    def _order_of(self, made: torch.Tensor) -> tuple[int, ...] | None:
        wanted = self._wanted
        if made.ndim != wanted.ndim or made.numel() != wanted.numel() or sorted(made.shape) != sorted(wanted.shape):
            return None
        for order in itertools.permutations(range(made.ndim)):
            turned = made.permute(order)
            if turned.shape == wanted.shape and _near(turned, wanted):
                return order
        return None


def _near(value: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((value - expected).abs().max() <= _SAME * expected.abs().max().clamp_min(1e-12))
