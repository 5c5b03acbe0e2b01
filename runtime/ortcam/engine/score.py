"""The score that a map explains, as numbers: a weighted sum of what can be read of a model's outputs.

For outputs z of D values (logits; the values themselves where the bundle's activation is "identity") the terms are

=================  ======  ==============================================================================
term               size    value
=================  ======  ==============================================================================
``logits``         D       z
``probabilities``  D       softmax(z), or the sigmoid of each
``direction``      D       z / max(|z|, 1e-12), whose product with a unit vector is the cosine
``entropy``        1       -sum p ln p of the softmax, or the sum of the entropies of the sigmoids, in nats
``one``            1       1, for constants
=================  ======  ==============================================================================

and a score is sum_t <w_t, term_t>. So one row of numbers says which score is meant, and the scorer graphs, which have
the terms in this order, need no other graph for another score.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Activation
from ortcam.engine.features import exact_probabilities
from ortcam.errors import BundleError

__all__ = ["LEAST_LENGTH", "TERMS", "ScoreMatrix", "Term", "score_terms", "term_sizes"]

Term = Literal["logits", "probabilities", "direction", "entropy", "one"]

# In the order of the scorers' input `score`.
TERMS: Final[tuple[Term, ...]] = ("logits", "probabilities", "direction", "entropy", "one")

# Of a vector whose direction is taken, as `torch.nn.functional.normalize` has it.
LEAST_LENGTH: Final = 1e-12

Floats = NDArray[np.float64]


def score_terms(activation: Activation | Literal["identity"], *, vectors: bool = True) -> tuple[Term, ...]:
    """The terms that scorers of a bundle have: what `Graphs.score_terms` is at export.

    Args:
        activation: of the bundle.
        vectors: whether the outputs are vectors; False for tensors, of which only elements can be meant.
    """
    if not vectors:
        return ("logits", "one")
    return ("logits", "direction", "one") if activation == "identity" else TERMS


def term_sizes(terms: Sequence[str], outputs: int) -> tuple[int, ...]:
    """How many columns of the input `score` each term has."""
    return tuple(1 if term in ("entropy", "one") else outputs for term in terms)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """K scores of the outputs of a model.

    Attributes:
        weights: term -> float64 [K,size]; terms that count nothing are left out.
        activation: from logits to probabilities.
        outputs: D.
        count: K.
    """

    weights: Mapping[Term, Floats]
    activation: Activation
    outputs: int
    count: int = 1

    @classmethod
    def of_classes(cls, term: Term, targets: NDArray[np.int64], *, activation: Activation, outputs: int) -> Self:
        """The logit, or the probability, of each of some classes.

        Args:
            term: "logits" or "probabilities".
            targets: int64 [K].
            activation: of the bundle.
            outputs: D.
        """
        weights = np.zeros((len(targets), outputs))
        weights[np.arange(len(targets)), targets] = 1
        return cls({term: weights}, activation, outputs, len(targets))

    @property
    def is_probability(self) -> bool:
        """Whether all values are in [0,1]: probabilities, or sums of some of those that add up to 1."""
        (rows,) = self.weights.values() if set(self.weights) == {"probabilities"} else (None,)
        if rows is None or rows.min() < 0:
            return False
        total = rows.max(axis=1) if self.activation == "softmax" else rows.sum(axis=1)
        return bool((total <= 1).all())

    @property
    def is_affine(self) -> bool:
        """Whether they are affine functions of the outputs, so that their derivatives are the same everywhere."""
        return all(term in ("logits", "one") or not weights.any() for term, weights in self.weights.items())

    @property
    def is_positive(self) -> bool:
        """Whether no value is below 0, and 0 means nothing: probabilities, the entropy, and sums of them."""
        natural = set(self.weights) <= {"probabilities", "entropy"}
        return natural and all(bool(rows.min() >= 0) for rows in self.weights.values())

    def value(self, logits: NDArray[np.float32]) -> Floats:
        """The scores, float64 [...,K], of logits [...,D]."""
        total = np.zeros((*logits.shape[:-1], self.count))
        for term, rows in self.weights.items():
            used = np.flatnonzero(rows.any(axis=0))
            if not used.size:
                continue
            total += self._term(term, logits)[..., used] @ rows[:, used].T
        return total

    def derivative(self, logits: NDArray[np.float32]) -> Floats:
        """The derivative with respect to the logits of one image, the seed of the gradient graph: float64 [K,D].

        Args:
            logits: [D].
        """
        z = logits.astype(np.float64)
        total = np.zeros((self.count, self.outputs))
        for term, rows in self.weights.items():
            if term == "logits":
                total += rows
            elif term == "probabilities":
                total += _of_probabilities(rows, z, self.activation)
            elif term == "direction":
                length = max(float(np.linalg.norm(z)), LEAST_LENGTH)
                unit = z / length
                total += (rows - (rows @ unit[:, None]) * unit) / length
            elif term == "entropy":
                total += rows * _entropy_derivative(z, self.activation)
        return total

    def rows(self, terms: Sequence[str]) -> NDArray[np.float32]:
        """What the scorers take as input `score`: float32 [K,U].

        Args:
            terms: `Graphs.score_terms` of the bundle.

        Raises:
            BundleError: its scorers lack a term.
        """
        if missing := [term for term in self.weights if term not in terms]:
            raise BundleError(f"the scorers of this bundle cannot compute {', '.join(missing)}: export it again")
        parts = [
            self.weights.get(term, np.zeros((self.count, size)))  # type: ignore[call-overload]
            for term, size in zip(terms, term_sizes(terms, self.outputs), strict=True)
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _term(self, term: Term, logits: NDArray[np.float32]) -> NDArray[np.floating]:
        """A term of logits [...,D]: [...,size]."""
        if term == "logits":
            return logits
        if term == "one":
            return np.ones((*logits.shape[:-1], 1))
        z = logits.astype(np.float64)
        if term == "probabilities":
            return exact_probabilities(z, self.activation)
        if term == "direction":
            direction: Floats = z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), LEAST_LENGTH)
            return direction
        return _entropy(z, self.activation)[..., None]


def _of_probabilities(rows: Floats, z: Floats, activation: Activation) -> Floats:
    """The derivative of sums of probabilities with respect to the logits, float64 [K,D], without 1 - p."""
    if activation == "sigmoid":
        slopes: Floats = rows * np.exp(-np.logaddexp(0, z) - np.logaddexp(0, -z))
        return slopes
    p = exact_probabilities(z, activation)
    # The same for all probabilities changes no sum of them: so none is left of the one that is nearly 1.
    apart = rows - rows[:, [int(p.argmax())]]
    return np.asarray(p * (apart - apart @ p[:, None]))


def _entropy(z: Floats, activation: Activation) -> Floats:
    """In nats, float64 [...], of logits [...,D]."""
    if activation == "sigmoid":
        away = np.abs(z)
        total: Floats = (np.logaddexp(0, -away) + away * np.exp(-np.logaddexp(0, away))).sum(axis=-1)
        return total
    log_p = _log_softmax(z)
    return np.asarray(-(np.exp(log_p) * log_p).sum(axis=-1))


def _entropy_derivative(z: Floats, activation: Activation) -> Floats:
    """The derivative of the entropy with respect to the logits, float64 [D]."""
    if activation == "sigmoid":
        p = exact_probabilities(z, "sigmoid")
        derivative: Floats = -z * p * exact_probabilities(-z, "sigmoid")
        return derivative
    log_p = _log_softmax(z)
    return np.asarray(-np.exp(log_p) * (log_p + _entropy(z, "softmax")))


def _log_softmax(z: Floats) -> Floats:
    shifted = z - z.max(axis=-1, keepdims=True)
    log_p: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_p
