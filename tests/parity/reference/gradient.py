"""The gradient methods as plain loops over channels and positions, with PyTorch's autograd in float64."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.parity.reference.classifier import Result, finish

ToMaps = Callable[[Tensor], Tensor]


class GradientReference:
    """One image in one classifier, explained by the derivative of its logits.

    Args:
        module: image [N,3,H,W] -> logits [N,classes]; it is copied.
        layers: paths of submodules, and what makes maps [N,C,h,w] of their outputs; the primary layer first.
        image: X, [1,3,H,W].
        noise: (seed, sample, shape) -> the noise of Smooth Grad-CAM++.
        dtype: float32 shows what rounding makes of a method.

    Attributes:
        jitter: what is added to gradients, in their largest value: normal noise of this size, to see what follows of
            their rounding.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[tuple[str, ToMaps]],
        image: Tensor,
        noise: Callable[[int, int, tuple[int, ...]], Tensor],
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.module = copy.deepcopy(module).to(dtype).eval()
        self.layers = list(layers)
        self.X = image.to(dtype)
        self.noise = noise
        self.jitter = 0.0
        self._generator = torch.Generator().manual_seed(0)
        self.logits, self.features = self._forward(self.X)
        self.A = [maps.detach()[0] for maps in self.features]

    def _forward(self, X: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, [classes], and the maps of each layer, with the graph between them."""
        seen: dict[str, Tensor] = {}
        handles = []
        for name, to_maps in self.layers:

            def keep(_: nn.Module, __: object, output: Tensor, name: str = name, to_maps: ToMaps = to_maps) -> Tensor:
                # Maps that the rest is computed from are leaves of what is differentiated.
                seen[name] = output.clone()
                return seen[name].clone()  # what follows may be an activation in place

            handles.append(self.module.get_submodule(name).register_forward_hook(keep))
        logits: Tensor = self.module(X.clone().requires_grad_())
        for handle in handles:
            handle.remove()
        self._outputs = [seen[name] for name, _ in self.layers]
        return logits[0], [to_maps(seen[name]) for name, to_maps in self.layers]

    def gradients(self, score: Callable[[Tensor], Tensor], layer: int = 0, X: Tensor | None = None) -> Tensor:
        """The derivative d score(logits) / d A of a layer, [C,h,w]."""
        logits, _ = self._forward(self.X if X is None else X)
        (gradient,) = torch.autograd.grad(score(logits), self._outputs[layer])
        if self.jitter:
            drawn = torch.randn(gradient.shape, generator=self._generator, dtype=torch.float64)
            gradient = gradient + self.jitter * gradient.abs().max() * drawn
        return self.layers[layer][1](gradient)[0]

    def grad_cam(self, targets: Sequence[int], *, layer: int = 0) -> Result:
        return self._by_channel(targets, layer, lambda A_k, g_k: g_k.mean())

    def grad_cam_plus_plus(self, targets: Sequence[int], *, layer: int = 0, epsilon: float = 0) -> Result:
        return self._by_channel(targets, layer, lambda A_k, g_k: _plus_plus(A_k, g_k, g_k**2, g_k**3, epsilon))

    def xgrad_cam(self, targets: Sequence[int], *, layer: int = 0, epsilon: float = 0) -> Result:
        def weight(A_k: Tensor, g_k: Tensor) -> Tensor:
            total = A_k.sum() + epsilon
            return (g_k * A_k).sum() / total if total != 0 else torch.zeros(())

        return self._by_channel(targets, layer, weight)

    def layer_cam(self, targets: Sequence[int], *, layer: int = 0) -> Result:
        return self._by_position(targets, layer, lambda g_k: g_k.relu())

    def hires_cam(self, targets: Sequence[int], *, layer: int = 0) -> Result:
        return self._by_position(targets, layer, lambda g_k: g_k)

    def smooth_grad_cam_plus_plus(
        self, targets: Sequence[int], *, num_samples: int, std: float, seed: int, epsilon: float = 0
    ) -> Result:
        raw, weights = [], []
        shape = tuple(self.X.shape)
        for c in targets:
            g = []
            for i in range(num_samples):
                noisy = (self.X.float() + std * self.noise(seed, i, shape)).double()
                g.append(self.gradients(lambda logits, c=c: logits[c], X=noisy))  # type: ignore[misc]
            powers = [torch.stack([one**power for one in g]).mean(dim=0) for power in (1, 2, 3)]
            w = torch.stack(
                [_plus_plus(A_k, powers[0][k], powers[1][k], powers[2][k], epsilon) for k, A_k in enumerate(self.A[0])]
            )
            raw.append(sum(w_k * A_k for w_k, A_k in zip(w, self.A[0], strict=True)))
            weights.append(w)
        return self._result(torch.stack(raw), torch.stack(weights), 0)

    def finer_cam(self, targets: Sequence[int], *, strength: float, references: int, weighting: str) -> Result:
        raw, weights = [], []
        for c in targets:
            order = (self.logits - self.logits[c]).abs().argsort(stable=True).tolist()
            similar = [d for d in order if d != c][:references]

            def score(logits: Tensor, c: int = c, similar: list[int] = similar) -> Tensor:
                p = logits.softmax(dim=0)
                shares = p[similar] if weighting == "probability" else torch.ones(len(similar))
                return (shares * (logits[c] - strength * logits[similar])).sum() / shares.sum()

            w = self.gradients(score).mean(dim=(1, 2))
            weights.append(w)
            raw.append(sum(w_k * A_k for w_k, A_k in zip(w, self.A[0], strict=True)))
        return self._result(torch.stack(raw), torch.stack(weights), 0)

    def fused_layer_cam(self, targets: Sequence[int]) -> Result:
        """The largest of tanh(2 M / max M) of the layers, at image size."""
        H, W = self.X.shape[2:]
        fused = torch.zeros(len(targets), H, W, dtype=torch.float64)
        for layer in range(len(self.layers)):
            for index, M in enumerate(self.layer_cam(targets, layer=layer).raw.relu()):
                if M.max() > 0:
                    scaled = torch.tanh(2 * M / M.max())[None, None]
                    large = F.interpolate(scaled, size=(H, W), mode="bilinear", align_corners=False)[0, 0]
                    fused[index] = torch.maximum(fused[index], large)
        channels = sum(len(A) for A in self.A)
        live = torch.cat([A.flatten(1).any(dim=1) for A in self.A])
        maps, flat = finish(fused)
        return Result(maps, fused, torch.zeros(len(targets), channels, dtype=torch.float64), flat, live)

    def _by_channel(self, targets: Sequence[int], layer: int, weight: Callable[[Tensor, Tensor], Tensor]) -> Result:
        A, raw, weights = self.A[layer], [], []
        for c in targets:
            g = self.gradients(lambda logits, c=c: logits[c], layer)  # type: ignore[misc]
            w = torch.stack([weight(A_k, g_k) for A_k, g_k in zip(A, g, strict=True)])
            weights.append(w)
            raw.append(sum(w_k * A_k for w_k, A_k in zip(w, A, strict=True)))
        return self._result(torch.stack(raw), torch.stack(weights), layer)

    def _by_position(self, targets: Sequence[int], layer: int, weight: Callable[[Tensor], Tensor]) -> Result:
        A, raw = self.A[layer], []
        for c in targets:
            g = self.gradients(lambda logits, c=c: logits[c], layer)  # type: ignore[misc]
            raw.append(sum(weight(g_k) * A_k for A_k, g_k in zip(A, g, strict=True)))
        return self._result(torch.stack(raw), torch.zeros(len(targets), len(A), dtype=torch.float64), layer)

    def _result(self, raw: Tensor, weights: Tensor, layer: int) -> Result:
        size = self.X.shape[2:]
        maps, flat = finish(F.interpolate(raw[None], size=size, mode="bilinear", align_corners=False)[0])
        return Result(maps, raw, weights, flat, self.A[layer].flatten(1).any(dim=1))


def _plus_plus(A_k: Tensor, g: Tensor, g2: Tensor, g3: Tensor, epsilon: float) -> Tensor:
    """Equation 19 of Grad-CAM++, one position at a time."""
    total, weight = A_k.sum(), torch.zeros((), dtype=torch.float64)
    for g_ij, g2_ij, g3_ij in zip(g.flatten(), g2.flatten(), g3.flatten(), strict=True):
        if g_ij > 0:
            weight += g2_ij / (2 * g2_ij + total * g3_ij + epsilon) * g_ij
    return weight
