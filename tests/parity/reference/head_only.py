"""The methods that alter the features and run the head alone, as plain loops."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.parity.reference.classifier import Classifier, Result, finish


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
        maps, flat = finish(upsampled)
        return Result(maps, raw, weights, flat, self.A.flatten(1).any(dim=1))
