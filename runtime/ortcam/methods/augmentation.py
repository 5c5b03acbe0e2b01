"""`Augmentation`: which turned, moved and mirrored copies of an image are explained, and how their maps become one.

`methods.common` has the options that say so, and `explainer.augmentation` does it.
"""

import dataclasses
from typing import Literal

__all__ = ["Augmentation", "Combination"]

Combination = Literal["mean", "max", "tv"]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Copies of an image, and how their maps are combined.

    Attributes:
        copies: N, the image itself included.
        combine: "mean", "max", or "tv": total-variation fusion.
        rotation: largest angle, in radians.
        shift: largest shift, as a share of each side.
        scale: largest change of size: a copy is between 1 / (1 + scale) and 1 + scale times as large.
        flip: whether half of the copies are mirrored, left to right.
        seed: of the generator (`scoring.noise`); copy i comes from (seed, i), however many there are.
    """

    copies: int
    combine: Combination = "mean"
    rotation: float = 0.5
    shift: float = 0.134
    scale: float = 0.0
    flip: bool = False
    seed: int = 0

    def record(self) -> dict[str, object]:
        """The options that this is, by name."""
        values = dataclasses.asdict(self)
        return {"augment": values.pop("copies")} | {f"augment_{name}": value for name, value in values.items()}
