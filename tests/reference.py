"""METHODS.md as a plain loop in float64 PyTorch, to compare the product with; it imports nothing of it."""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from ortcam.bundle import Cut

__all__ = [
    "DEFAULTS",
    "GATES",
    "Classifier",
    "HeadReference",
    "Reference",
    "Result",
    "at_cut",
    "at_layer",
    "promised_noise",
    "token_maps",
]

# The column "default" of METHODS.md. std=None is "authors" for noise on the input and 2.0 for noise on the activation.
_SHARED = {"weighting": "probability", "baseline": "none", "normalize": "after-upsampling", "maps": "raw"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "scorecam": _SHARED,
    "scorecam++": {"gate": "tanh", "gate_sum": True, "weighting": "probability", "baseline": "none"},
    "sscam": {"num_samples": 35, "std": None, "noise": "input", "seed": 0, **_SHARED},
    "iscam": {"num_samples": 10, "path": "cumulative", **_SHARED},
}

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sigmoid-relu": lambda x: torch.sigmoid(torch.relu(x / 2)),
    "relu": torch.relu,
    "mish": F.mish,
    "swish": F.silu,
    "softsign": F.softsign,
}

# Two float64 numbers closer than this, relative to their size, differ by rounding.
_ROUNDING = 1e-12
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A classifier and the maps inside it, both functions of images, float64 [N,3,H,W].

    Attributes:
        maps: -> A, float64 [N,C,h,w].
        logits: head(features(.)), float64 [N,classes].
        dtype: of both; the sums over channels and passes are float64 all the same.
        activation: what makes p of the logits: "softmax" over the classes, or the "sigmoid" of each.
        altered: the logits of images whose maps, a view of the features, a function alters in place.
    """

    maps: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.float64
    activation: Literal["softmax", "sigmoid"] = "softmax"
    altered: Callable[[Tensor, Callable[[Tensor], None]], Tensor] | None = None

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of logits, [N,classes]: p, of the same shape."""
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)


def at_layer(
    module: nn.Module,
    layer: str,
    to_maps: Callable[[Tensor], Tensor] = lambda features: features,
    *,
    dtype: torch.dtype = torch.float64,
    activation: Literal["softmax", "sigmoid"] = "softmax",
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
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Classifier:
    """A module in float64, and its maps where a bundle says that it was cut."""
    layouts: dict[str, Callable[[Tensor], Tensor]] = {
        "nchw": lambda features: features,
        "nhwc": lambda features: features.permute(0, 3, 1, 2),
        "tokens": token_maps(cut.prefix_tokens, cut.height, cut.width),
    }
    if cut.module is None:
        raise ValueError(f"{cut.tensor} is the output of no module")
    return at_layer(module, cut.module, layouts[cut.layout], dtype=dtype, activation=activation)


def promised_noise(seed: int, sample: int, shape: tuple[int, ...]) -> Tensor:
    """Sample i of the noise as the product promises to draw it: whole numbers in int64, the rest in float64."""

    def mix(x: Tensor) -> Tensor:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32))):
            x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
        return x ^ (x >> 16)

    key = torch.tensor(0)
    for word in (seed, sample):  # a seed of one word
        key = mix((key + 0x9E3779B9 + word) & 0xFFFFFFFF)
    hashes = mix(mix(torch.arange(2 * math.prod(shape))) ^ key)
    u, v = (((hashes >> 9).double() + 0.5) / (1 << 23)).view(-1, 2).T
    return (torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)).view(shape).float()


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


class Pass(NamedTuple):
    """What sets one pass of a channel apart from the others.

    Attributes:
        coefficient: c_i.
        noise: where the noise is added, "input" or "activation"; None for none.
        std: of the noise, or "authors".
        seed: of the noise.
        sample: i, counted from 0.
    """

    coefficient: float = 1.0
    noise: str | None = None
    std: float | str = 0.0
    seed: int = 0
    sample: int = 0


class Reference:
    """One image in one classifier, explained by any method.

    The logits of a set of C masked images are kept: options that only weigh or sum differently share them.

    Args:
        classifier: in float64.
        image: X, [1,3,H,W].
        draw: draw(seed, i, shape) is sample i of the noise, of unit variance.
    """

    def __init__(
        self, classifier: Classifier, image: Tensor, draw: Callable[[int, int, tuple[int, ...]], Tensor] | None = None
    ) -> None:
        self.classifier = classifier
        self.X = image.to(classifier.dtype)
        self.draw = draw
        with torch.inference_mode():
            self.A = classifier.maps(self.X)[0]
            self.clean_logits = classifier.logits(self.X)[0]
        self._tables: dict[tuple[str, Pass], Tensor] = {}

    @torch.inference_mode()
    def explain(self, method: str, targets: Sequence[int], **options: object) -> Result:
        """The maps of a method for some classes; options as METHODS.md names them."""
        unknown = options.keys() - DEFAULTS[method].keys()
        if unknown:
            raise ValueError(f"{method} has no option {unknown}")
        o = DEFAULTS[method] | options
        kind = o["gate"] if method == "scorecam++" else o["normalize"]
        kind = "after-upsampling" if kind == "minmax" else kind
        live = torch.tensor([self._mask(kind, k) is not None for k in range(len(self.A))])
        tables = [self._logits(kind, live, step) for step in _passes(method, o)]

        weights = torch.zeros(len(targets), len(self.A), dtype=torch.float64)
        if live.any():
            weights[:, live] = self._weights(tables, targets, o)[live].T

        sum_masks = o["gate_sum"] if method == "scorecam++" else o["maps"] == "normalized"
        raw = torch.zeros(len(targets), *self.X.shape[2:], dtype=torch.float64)
        for k in torch.nonzero(live).flatten().tolist():
            summed = self._mask(kind, k) if sum_masks else self._upsampled(self.A[k])
            assert summed is not None
            raw += weights[:, k, None, None] * summed
        maps, flat = _finish(raw)
        return Result(maps, raw, weights, flat, live)

    def _upsampled(self, channel: Tensor) -> Tensor:
        """U: [h,w] -> [H,W]."""
        size = self.X.shape[2:]
        return F.interpolate(channel[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]

    def _mask(self, kind: str, k: int) -> Tensor | None:
        """What X is multiplied with for channel k, [H,W]; None where it is flat (for a gate: zero everywhere)."""
        A_k = self.A[k]
        if kind in GATES:
            gated = GATES[kind](self._upsampled(A_k))
            return gated if gated.any() else None
        U = self._upsampled(A_k)
        if _is_flat(U):
            return None
        return _minmax(U) if kind == "after-upsampling" else self._upsampled(_minmax(A_k))

    def _logits(self, kind: str, live: Tensor, step: Pass) -> Tensor:
        """The logits of the masked images of a pass, [C,classes]; NaN for flat channels, which have none."""
        if (kind, step) not in self._tables:
            noise = self._noise(step)
            table = torch.full((len(self.A), len(self.clean_logits)), torch.nan, dtype=torch.float64)
            channels = torch.nonzero(live).flatten().tolist()
            for start in range(0, len(channels), _BATCH):
                batch = channels[start : start + _BATCH]
                masked = torch.cat([self._masked(kind, k, step, noise) for k in batch])
                table[batch] = self.classifier.logits(masked).double()
            self._tables[kind, step] = table
        return self._tables[kind, step]

    def _noise(self, step: Pass) -> Tensor:
        if step.noise is None:
            return torch.zeros(())
        assert self.draw is not None
        shape = tuple(self.X.shape) if step.noise == "input" else tuple(self.X.shape[2:])
        return self.draw(step.seed, step.sample, shape).to(self.X.dtype)

    def _masked(self, kind: str, k: int, step: Pass, n: Tensor) -> Tensor:
        """M_k, with the noise of the method, [1,3,H,W]."""
        mask = self._mask(kind, k)
        assert mask is not None
        if step.noise == "activation":
            assert isinstance(step.std, float)
            return (mask + step.std * n) * self.X
        M = step.coefficient * self.X * mask
        if step.noise == "input":
            if step.std == "authors":
                return M + (2 / (M.max() - M.min())) ** 2 * n
            assert isinstance(step.std, float)
            M = M + step.std * n
        return M

    def _weights(self, tables: list[Tensor], targets: Sequence[int], o: dict[str, Any]) -> Tensor:
        """alpha, [C,K]; NaN for flat channels."""
        if o["weighting"] == "logit-softmax":
            logits = torch.stack([table[:, targets] for table in tables]).mean(dim=0)
            return logits.nan_to_num(nan=-torch.inf).softmax(dim=0)
        p = self.classifier.probabilities
        alpha = torch.stack([p(table)[:, targets] for table in tables]).mean(dim=0)
        if o["baseline"] == "zeros":
            alpha = alpha - p(self.classifier.logits(torch.zeros_like(self.X)))[0, targets]
        return alpha


class HeadReference:
    """One image in one classifier, explained by the methods that alter its features, one whole pass at a time.

    Args:
        classifier: in float64, with `altered`.
        image: X, [1,3,H,W].
    """

    def __init__(self, classifier: Classifier, image: Tensor) -> None:
        self.classifier = classifier
        self.X = image.to(classifier.dtype)
        with torch.inference_mode():
            self.A = classifier.maps(self.X)[0].clone()
            self.clean_logits = classifier.logits(self.X)[0]

    @torch.inference_mode()
    def recipro_cam(self, targets: Sequence[int], *, kernel: str = "single", score: str = "probability") -> Result:
        """M_ij: the score where position i, j, or what a kernel leaves around it, is all that is left."""
        _, h, w = self.A.shape
        raw = torch.zeros(len(targets), h, w, dtype=torch.float64)
        for i in range(h):
            for j in range(w):

                def leave(maps: Tensor, i: int = i, j: int = j) -> None:
                    maps.zero_()
                    for row in range(max(i - 1, 0), min(i + 2, h)):
                        for column in range(max(j - 1, 0), min(j + 2, w)):
                            factor = 0.25 / 2 ** (abs(row - i) + abs(column - j))
                            if kernel == "single":
                                factor = float((row, column) == (i, j))
                            source = (i, j) if kernel == "gaussian-spread" else (row, column)
                            maps[0, :, row, column] = factor * self.A[:, source[0], source[1]]

                raw[:, i, j] = self._score(leave, targets, score)
        if score == "logit":
            raw -= raw.amin(dim=(1, 2), keepdim=True)
        return self._result(raw, torch.zeros(len(targets), len(self.A), dtype=torch.float64))

    @torch.inference_mode()
    def ablation_cam(self, targets: Sequence[int], *, score: str = "logit") -> Result:
        """alpha_k: what the score loses, of its size, when channel k is zero."""
        y = self._score(lambda _: None, targets, score)
        weights = torch.zeros(len(targets), len(self.A), dtype=torch.float64)
        for k in range(len(self.A)):

            def ablate(maps: Tensor, k: int = k) -> None:
                maps[0, k] = 0

            weights[:, k] = (y - self._score(ablate, targets, score)) / y.abs()
        return self._result(self._sum(weights), weights)

    @torch.inference_mode()
    def eigen_cam(self, targets: Sequence[int], *, center: bool = False) -> Result:
        """O v, of the sign with which it rises with the norm of the features of a position."""
        rows = self.A.double().flatten(1).T
        strength = rows.norm(dim=1)
        if center:
            rows = rows - rows.mean(dim=0)
        v = torch.linalg.svd(rows, full_matrices=False).Vh[0]
        if float((rows @ v) @ strength) < 0:
            v = -v
        weights = v.expand(len(targets), -1)
        raw = (rows @ v).reshape(self.A.shape[1:]).expand(len(targets), -1, -1)
        return self._result(raw, weights)

    @torch.inference_mode()
    def cam(self, targets: Sequence[int], *, linear: nn.Linear) -> Result:
        """The sum of w_ck A_k, with the weights of the layer itself."""
        weights = linear.weight.double()[list(targets)]
        return self._result(self._sum(weights), weights)

    def _score(self, alter: Callable[[Tensor], None], targets: Sequence[int], score: str) -> Tensor:
        assert self.classifier.altered is not None
        logits = self.classifier.altered(self.X, alter)
        return (logits if score == "logit" else self.classifier.probabilities(logits))[0, list(targets)].double()

    def _sum(self, weights: Tensor) -> Tensor:
        raw = torch.zeros(len(weights), *self.A.shape[1:], dtype=torch.float64)
        for k, A_k in enumerate(self.A.double()):
            raw += weights[:, k, None, None] * A_k
        return raw

    def _result(self, raw: Tensor, weights: Tensor) -> Result:
        size = self.X.shape[2:]
        upsampled = F.interpolate(raw[None], size=size, mode="bilinear", align_corners=False)[0]
        maps, flat = _finish(upsampled)
        return Result(maps, raw, weights, flat, self.A.flatten(1).any(dim=1))


def _passes(method: str, o: dict[str, Any]) -> list[Pass]:
    if method == "iscam":
        N = o["num_samples"]
        if o["path"] == "linear":
            return [Pass(i / N) for i in range(1, N + 1)]
        # The recurrence M_{i+1} = M_i + (X * A_k) i/N.
        return [Pass(sum(range(1, i + 1)) / N) for i in range(1, N + 1)]
    if method == "sscam":
        std = o["std"]
        if std is None:
            std = "authors" if o["noise"] == "input" else 2.0
        return [Pass(noise=o["noise"], std=std, seed=o["seed"], sample=i) for i in range(o["num_samples"])]
    return [Pass()]


def _is_flat(values: Tensor) -> bool:
    return bool(values.max() - values.min() <= _ROUNDING * values.abs().max())


def _minmax(M: Tensor) -> Tensor:
    return (M - M.min()) / (M.max() - M.min())


def _finish(raw: Tensor) -> tuple[Tensor, Tensor]:
    """ReLU and min-max of each map, and which are flat and therefore zero."""
    maps = torch.zeros_like(raw)
    flat = torch.ones(len(raw), dtype=torch.bool)
    for index, positive in enumerate(raw.relu()):
        flat[index] = _is_flat(positive)
        if not flat[index]:
            maps[index] = _minmax(positive)
    return maps, flat
