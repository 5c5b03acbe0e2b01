"""`method="auto"`: which method a kind of bundle gets, and why. A table of data, and the function that reads it.

The page in the browser has the same table (`runtime/web`), and a test compares the two.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from ortcam.bundle import Manifest
from ortcam.errors import OptionError
from ortcam.methods.head import HeadInputs, HeadScores
from ortcam.methods.method import Method

__all__ = ["AUTO", "AUTO_METHOD", "KINDS", "AutoRow", "kind_of", "row_of"]


@dataclasses.dataclass(frozen=True)
class AutoRow:
    """What one kind of bundle gets.

    Attributes:
        kind: of bundle; `KINDS` says what each is.
        method: name of the method.
        arguments: of `explain` that go with it: options of the method, or a budget.
        reason: why, in one line that follows "because".
    """

    kind: str
    method: str
    arguments: Mapping[str, Any]
    reason: str

    @property
    def line(self) -> str:
        """What a result says: the method, and why."""
        given = " and ".join(f"{name} {value}" for name, value in self.arguments.items())
        return f"{self.method}{f' with {given}' if given else ''}, because {self.reason}"


# What each kind of bundle is. Those that begin with "limited" are of explanations with a budget, a deadline or a
# tolerance, or of previews: only a method that masks the image has them.
KINDS: Final[dict[str, str]] = {
    "affine": "maps in a grid; the head is pooling and one linear layer",
    "convolutional": "maps in a grid; another head",
    "attention": "a transformer's tokens; attention follows in the head",
    "tokens": "a transformer's tokens; another head",
    "without-gradient": "maps in a grid; the bundle has no gradient",
    "tokens-without-gradient": "tokens; the bundle has no gradient",
    "without-head": "maps in a grid, inside a branch; the bundle has no head and no gradient",
    "tokens-without-head": "tokens inside a branch; the bundle has no head",
    "limited": "maps in a grid; a budget, a deadline, a tolerance, or previews",
    "limited-tokens": "tokens; a budget, a deadline, a tolerance, or previews",
}

AUTO: Final = (
    AutoRow(
        "affine",
        "grad-cam",
        {},
        "on insertion and deletion no method was more than about a point ahead, and it takes about as long as a "
        "prediction",
    ),
    AutoRow(
        "convolutional",
        "grad-cam",
        {},
        "on insertion and deletion it was within a point of recipro-cam, the best, in a small part of its time",
    ),
    AutoRow(
        "attention",
        "grad-attention",
        {},
        "on tokens it was level with recipro-cam on insertion and deletion, in a tenth of its time",
    ),
    AutoRow(
        "tokens",
        "recipro-cam",
        {},
        "on tokens it was ahead of the masked methods on insertion, deletion and Average Drop",
    ),
    AutoRow(
        "without-gradient",
        "recipro-cam",
        {},
        "this bundle has no gradient, and no other method was ahead of it on insertion and deletion",
    ),
    AutoRow(
        "tokens-without-gradient",
        "recipro-cam",
        {},
        "on tokens it was ahead of the masked methods on insertion, deletion and Average Drop",
    ),
    AutoRow(
        "without-head",
        "scorecam",
        {"budget": 0.12},
        "the layer lies inside a branch; a budget costs hardly any faithfulness there",
    ),
    AutoRow(
        "tokens-without-head",
        "scorecam",
        {},
        "the layer lies inside a branch; on tokens it was ahead of scorecam++ on insertion and deletion",
    ),
    AutoRow(
        "limited",
        "scorecam++",
        {},
        "limits and previews need a method that masks the image, and it has the best Average Drop of these",
    ),
    AutoRow(
        "limited-tokens",
        "scorecam",
        {},
        "limits and previews need a method that masks the image, and on tokens it was ahead of scorecam++",
    ),
)


def kind_of(manifest: Manifest, *, limited: bool = False) -> str:
    """The kind of a bundle, from its manifest alone.

    Args:
        manifest: of the bundle.
        limited: whether only a method that masks the image will do.
    """
    tokens, gradient, has_head = manifest.cut.layout == "tokens", manifest.gradient, manifest.graphs.head is not None
    if limited:
        return "limited-tokens" if tokens else "limited"
    if tokens and gradient is not None and gradient.attention_heads is not None:
        return "attention"
    if not has_head and (tokens or gradient is None):
        return "tokens-without-head" if tokens else "without-head"
    if gradient is None:
        return "tokens-without-gradient" if tokens else "without-gradient"
    if tokens:
        return "tokens"
    return "convolutional" if gradient.inputs else "affine"


def row_of(manifest: Manifest, *, limited: bool = False) -> AutoRow:
    """The row of the table that a bundle gets.

    Args:
        manifest: of the bundle.
        limited: whether only a method that masks the image will do.
    """
    kind = kind_of(manifest, limited=limited)
    return next(row for row in AUTO if row.kind == kind)


def _compute(_: HeadInputs, __: Mapping[str, Any]) -> HeadScores:
    raise OptionError("auto: stands for another method, which is chosen when the bundle is known")


# Stands for the method until the bundle is known. It is in no table of methods.
AUTO_METHOD: Final = Method(
    name="auto",
    title="Automatic",
    compute=_compute,
    summary="Takes the method that suits the bundle, and says which and why.",
    formula="that of the method taken",
    cost="that of the method taken",
    source="benchmarks/results/faithfulness-gradients.md",
    use="The default.",
)
