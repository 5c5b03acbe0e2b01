"""A prediction: one class that the model gives an image, with its probability."""

import dataclasses

__all__ = ["Prediction"]


@dataclasses.dataclass(frozen=True, repr=False)
class Prediction:
    """A class that the model gives an image.

    Attributes:
        index: of the class.
        label: its name.
        probability: in [0,1].
    """

    index: int
    label: str
    probability: float

    def __repr__(self) -> str:
        return f"<Prediction {self.label!r} ({self.index}), {self.probability:.2%}>"
