"""The methods that mask the image, as plain loops over channels and passes."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.parity.reference.classifier import Classifier, Result, finish, is_flat, min_max

# The defaults of docs/reference/methods.md. std=None is "authors" for noise on the input and 2.0 for noise on the
# activation.
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

BATCH = 32


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
        """The maps of a method for some classes; options as docs/reference/methods.md names them."""
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
        maps, flat = finish(raw)
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
        if is_flat(U):
            return None
        return min_max(U) if kind == "after-upsampling" else self._upsampled(min_max(A_k))

    def _logits(self, kind: str, live: Tensor, step: Pass) -> Tensor:
        """The logits of the masked images of a pass, [C,classes]; NaN for flat channels, which have none."""
        if (kind, step) not in self._tables:
            noise = self._noise(step)
            table = torch.full((len(self.A), len(self.clean_logits)), torch.nan, dtype=torch.float64)
            channels = torch.nonzero(live).flatten().tolist()
            for start in range(0, len(channels), BATCH):
                batch = channels[start : start + BATCH]
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
