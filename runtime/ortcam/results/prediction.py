"""A prediction: one class that the model gives an image, with its probability; or one output, with its value."""

import dataclasses

__all__ = ["Prediction"]


@dataclasses.dataclass(frozen=True, repr=False)
class Prediction:
    """A class that the model gives an image.

    Attributes:
        index: of the class.
        label: its name.
        probability: in [0,1]; of a model whose outputs are values the value.
        is_probability: whether it is one.
    """

    index: int
    label: str
    probability: float
    is_probability: bool = True

    def __repr__(self) -> str:
        value = f"{self.probability:.2%}" if self.is_probability else f"{self.probability:.4g}"
        return f"<Prediction {self.label!r} ({self.index}), {value}>"
