"""What a method is: its name, its options, and what it does with an image.

A masked method has a function `plan`, from its options to a `Plan` that the scoring loop follows. A head-only method
has a function `compute`, from `HeadInputs` and its options to `HeadScores`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import GATES
from ortcam.errors import OptionError
from ortcam.methods.augmentation import Augmentation
from ortcam.methods.head import HeadInputs, HeadScores
from ortcam.support.ranges import Range, shown

__all__ = ["MASKED_ONLY", "MapKind", "Method", "Noise", "Option", "Plan", "Settings", "Weighting"]

Weighting = Literal["probability", "logit-softmax"]
MapKind = Literal["raw", "normalized"]
Normalize = Literal["after-upsampling", "before-upsampling"]

# The end of every message that refuses what only masked methods take.
MASKED_ONLY: Final = "goes with methods that mask the image, such as scorecam++"


@dataclasses.dataclass(frozen=True)
class Noise:
    """Gaussian noise added to the masked inputs: one draw a sample, shared by all channels.

    Attributes:
        samples: N.
        std: standard deviation, or "authors": std_k = (2 / (max M_k - min M_k))^2 of the masked image M_k.
        on: "input" adds n to the masked image; "activation" adds n to the mask, so n * X to the masked image.
        seed: of the generator (`scoring.noise`); sample i comes from (seed, i), whatever the chunk size and provider.
    """

    samples: int
    std: float | Literal["authors"]
    on: Literal["input", "activation"]
    seed: int


_WORDS: Final = {"normalize": get_args(Normalize), "weighting": get_args(Weighting), "maps": get_args(MapKind)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the engine has to do for a method with its options.

    Attributes:
        normalize: min-max each map "after-upsampling" or "before-upsampling"; None where a gate takes its place.
        gate: gate applied to the upsampled map inside the graph, or None.
        coefficients: factors on the masked image; the weight is the mean over them.
        noise: noise on the masked image, or None.
        weighting: the weight of a channel: class probability, or softmax over channels of the class logit.
        baseline: whether p(0)[c] is subtracted from the probabilities.
        maps: what is summed where the sum is not gated.
        gate_sum: whether the gated maps are summed instead.

    Raises:
        OptionError: a gate that no bundle has a graph for, a word that is not accepted, no pass for a channel, gated
            maps to sum without a gate, or noise with one.
    """

    normalize: Normalize | None
    gate: str | None = None
    coefficients: tuple[float, ...] = (1.0,)
    noise: Noise | None = None
    weighting: Weighting = "probability"
    baseline: bool = False
    maps: MapKind = "raw"
    gate_sum: bool = False

    def __post_init__(self) -> None:
        if self.gate is not None and self.gate not in GATES:
            raise OptionError(f"the gate {shown(self.gate)} is not accepted; accepted: {', '.join(GATES)}")
        for name, accepted in _WORDS.items():
            if (word := getattr(self, name)) not in accepted and not (name == "normalize" and word is None):
                raise OptionError(f"{name}={shown(word)} in a plan is not accepted; accepted: {', '.join(accepted)}")
        if self.samples < 1:
            raise OptionError("a plan without a pass for each channel: accepted is one coefficient or sample, or more")
        if self.gate_sum and self.gate is None:
            raise OptionError("gate_sum in a plan without a gate: there are no gated maps to sum")
        if self.noise is not None and self.gate is not None:
            raise OptionError("noise in a plan with a gate: no bundle has a graph for both")

    @property
    def scorer(self) -> str:
        """The kind of scorer graph that this plan runs on."""
        return "noise" if self.noise else self.gate or "linear"

    @property
    def samples(self) -> int:
        """Forward passes per channel."""
        return self.noise.samples if self.noise else len(self.coefficients)


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a method.

    Attributes:
        name: keyword argument, and KEY in `--option KEY=VALUE`.
        default: what holds where the user passes none.
        accepted: what is accepted, in words.
        parse: turns a Python value or a command-line string into the option's value, or raises ValueError.
        help: what it does and where it comes from.

    Example:
        >>> Option.number("steps", 10, least=1, most=100, help="steps per channel").parse("7")
        7
    """

    name: str
    default: object
    accepted: str
    parse: Callable[[object], object]
    help: str

    @staticmethod
    def choice(name: str, *values: str, help: str) -> "Option":  # noqa: A002
        """An option that is one of several words; the first is the default."""

        def parse(value: object) -> object:
            if value not in values:
                raise ValueError
            return value

        return Option(name, values[0], ", ".join(values), parse, help)

    @staticmethod
    def number(name: str, default: float, *, least: float, most: float, whole: bool = True, help: str) -> "Option":  # noqa: A002
        """An option that is a number from `least` to `most`; a whole one unless `whole=False`."""
        range_ = Range(name, least, most, whole=whole)
        return Option(name, default, range_.words, range_.parse, help)

    @staticmethod
    def flag(name: str, default: bool, *, help: str) -> "Option":  # noqa: A002
        """An option that is true or false."""
        return Option(name, default, "true or false", _parse_flag, help)


def _parse_flag(value: object) -> object:
    if isinstance(value, str):
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value.lower()]
    if not isinstance(value, bool):
        raise TypeError
    return value


@dataclasses.dataclass(frozen=True, repr=False)
class Method:
    """A method: a row of the table `ortcam.METHODS`.

    It has exactly one of `plan` and `compute`.

    Attributes:
        name: as people type it.
        title: for images and tables.
        summary: what the method does, in one sentence.
        aliases: other spellings.
        options: what can be set.
        plan: of a method that masks the image: from the complete options to what the scoring loop does.
        compute: of a method that masks no image: from features, head and the complete options to its maps.
        formula: the map before ReLU, in the notation of `methods.masked`, `methods.head_only` and `methods.gradient`.
        cost: forward passes per image, in words.
        source: the paper, and the version that is followed.
        use: when to choose it, in one sentence.
        needs_head: whether the bundle has to have a head; a cut inside a branch leaves none.
        needs_gradient: whether the bundle has to have a gradient graph, and `compute` uses `HeadInputs.derivative`.
        needs_attention: whether that graph has to know the attention behind the layer, as for vision transformers.
        takes_scores: of a method with `compute`: whether it explains `HeadInputs.score` where there is one, and not the
            classes `HeadInputs.targets`. A method with a `plan` explains any score.
    """

    name: str
    title: str
    summary: str
    _: dataclasses.KW_ONLY
    aliases: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    plan: Callable[[Mapping[str, Any]], Plan] | None = None
    compute: Callable[[HeadInputs, Mapping[str, Any]], HeadScores] | None = None
    formula: str
    cost: str
    source: str
    use: str
    needs_head: bool = False
    needs_gradient: bool = False
    needs_attention: bool = False
    takes_scores: bool = False

    @property
    def masks_image(self) -> bool:
        """Whether it scores masked images, and so takes budgets, deadlines and scorers of another precision."""
        return self.plan is not None

    @property
    def samples(self) -> int:
        """Forward passes per channel with the default options; 0 for a method that masks no image."""
        return 0 if self.plan is None else self.plan(self.defaults).samples

    @property
    def defaults(self) -> dict[str, object]:
        """The default of every option, by name."""
        return {option.name: option.default for option in self.options}

    def __repr__(self) -> str:
        options = ", ".join(option.name for option in self.options) or "none"
        return f"<Method {self.name}, forward passes: {self.cost}; options: {options}>"


@dataclasses.dataclass(frozen=True)
class Settings:
    """A method with all its options.

    Attributes:
        method: the method.
        options: every option of the method itself, defaults included.
        plan: what the scoring loop does; None for a method that masks no image.
        augmentation: the copies of the image that are explained; None: the image alone.
    """

    method: Method
    options: dict[str, object]
    plan: Plan | None
    augmentation: Augmentation | None = None

    @property
    def all_options(self) -> dict[str, object]:
        """Every option that the map depends on, as a manifest has it: those of the method, and of the copies if any."""
        return self.options | ({} if self.augmentation is None else self.augmentation.record())

    def compute(self, inputs: HeadInputs) -> HeadScores:
        """Run a head-only method.

        Raises:
            OptionError: the head is of a kind that the method cannot use, or a registered method returns something
                else than float64 maps [K,h,w] and weights [K,C].
        """
        assert self.method.compute is not None  # of methods that mask the image `plan` is followed
        scores: object = self.method.compute(inputs, self.options)
        if not isinstance(scores, HeadScores):
            raise OptionError(f"{self.method.name}: gives {shown(scores)}; accepted is an ortcam.methods.HeadScores")
        layers = [inputs.maps] if inputs.derivative is None else [layer.maps for layer in inputs.derivative.layers]
        for item in scores.all:
            if item.layer not in range(len(layers)):
                raise OptionError(
                    f"{self.method.name}: gives maps of layer {shown(item.layer)}; accepted is 0 to {len(layers) - 1}"
                )
            self._check_shapes(item, len(inputs.targets), layers[item.layer])
        return scores

    def _check_shapes(self, scores: HeadScores, classes: int, maps: NDArray[np.float32]) -> None:
        channels, height, width = maps.shape
        for array in (scores.raw, scores.weights):
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
                raise OptionError(f"{self.method.name}: gives {shown(array)}; accepted are arrays of numbers")
        found = scores.raw.shape, scores.weights.shape
        if found != ((classes, height, width), (classes, channels)):
            raise OptionError(
                f"{self.method.name}: gives maps {list(found[0])} and weights {list(found[1])}; accepted is "
                f"{[classes, height, width]} and {[classes, channels]}"
            )
