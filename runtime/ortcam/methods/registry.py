"""The methods as data: what each masks with, how it weighs, what it sums. A new method is a new row, not a new loop.

Notation, formulas and sources: X is the preprocessed image, A_k a channel of the features, U bilinear upsampling with
half-pixel centres, s(M) = (M - min M) / (max M - min M) per channel, p(Z) = softmax(head(features(Z))), or the sigmoid
of each logit where the bundle's activation says so, c the class.

==============  ====================================  ==================  ==========================  ======
method          masked input                          weight alpha_k      map before ReLU             passes
==============  ====================================  ==================  ==========================  ======
``scorecam``    X * s(U(A_k))                         p(.)[c]             sum alpha_k U(A_k)          C
``scorecam++``  X * tanh(U(A_k))                      p(.)[c]             sum alpha_k tanh(U(A_k))    C
``sscam``       X * s(U(A_k)) + n_i, i = 1..N         mean_i p(.)[c]      sum alpha_k U(A_k)          N C
``iscam``       c_i * X * s(U(A_k)), i = 1..N         mean_i p(.)[c]      sum alpha_k U(A_k)          N C
==============  ====================================  ==================  ==========================  ======

- ``scorecam``: Wang et al., "Score-CAM", CVPRW 2020, as in the authors' code.
- ``scorecam++``: Mitra et al., "Reliable or Deceptive?", arXiv 2404.19341; figure 1 (the gated map is summed).
- ``sscam``: arXiv 2006.14255 and the poster "Improved variants of Score-CAM via Smoothing and Integrating".
- ``iscam``: arXiv 2010.03023 and the same poster; cumulative coefficients i(i+1)/(2N).

These mask the image. Four more ask the head alone, or nothing at all (`head_methods.py` computes them); y are the
logits of the features, y_k those of features with A_k = 0, p(.) what the head gives for altered features.

================  ==============================================  ========================  ===============
method            altered features                                map before ReLU           head passes
================  ==============================================  ========================  ===============
``recipro-cam``   A * k_ij, k_ij = 1 at i, j, else 0              M_ij = p(A * k_ij)[c]     h w
``ablation-cam``  A with A_k = 0                                  sum (y - y_k)/abs(y) A_k  live channels
``eigen-cam``     none; v is the first right singular vector      sum v_k A_k               0
``cam``           none; y_c = sum w_kc mean A_k + b_c             sum w_kc A_k              C + 17, once
================  ==============================================  ========================  ===============

- ``recipro-cam``: Byun & Lee, arXiv 2209.14074 (CVPR workshops 2024), as in the authors' code.
- ``ablation-cam``: Desai & Ramaswamy, WACV 2020, but for the sign where y is negative.
- ``eigen-cam``: Muhammad & Yeasin, arXiv 2008.00299; the same map for every class.
- ``cam``: Zhou et al., CVPR 2016; for heads that are average pooling and one linear layer.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from ortcam.bundle import GATES
from ortcam.errors import OptionError
from ortcam.support.ranges import SEED, Range, shown
from ortcam.support.suggestions import did_you_mean

__all__ = [
    "HEAD_METHODS",
    "MASKED_METHODS",
    "METHODS",
    "HeadPlan",
    "Kernel",
    "Method",
    "Noise",
    "Option",
    "Plan",
    "Score",
    "Settings",
    "resolve_method",
]

Weighting = Literal["probability", "logit-softmax"]
MapKind = Literal["raw", "normalized"]
Score = Literal["probability", "logit"]
Kernel = Literal["single", "gaussian", "gaussian-spread"]


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
    """

    normalize: Literal["after-upsampling", "before-upsampling"] | None
    gate: str | None = None
    coefficients: tuple[float, ...] = (1.0,)
    noise: Noise | None = None
    weighting: Weighting = "probability"
    baseline: bool = False
    maps: MapKind = "raw"
    gate_sum: bool = False

    @property
    def scorer(self) -> str:
        """The kind of scorer graph that this plan runs on."""
        return "noise" if self.noise else self.gate or "linear"

    @property
    def samples(self) -> int:
        """Forward passes per channel."""
        return self.noise.samples if self.noise else len(self.coefficients)


@dataclasses.dataclass(frozen=True)
class HeadPlan:
    """What is to be done for a method that masks no image: it alters the features and asks the head, if it asks at all.

    Attributes:
        kind: which of the functions in `head_methods.py`.
        score: what is read of the head's output: class probability or logit.
        kernel: Recipro-CAM's mask around a position.
        center: whether Eigen-CAM takes the mean of each channel off first.
    """

    kind: Literal["recipro", "ablation", "eigen", "cam"]
    score: Score = "probability"
    kernel: Kernel = "single"
    center: bool = False


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a method.

    Attributes:
        name: keyword argument, and KEY in `--option KEY=VALUE`.
        default: what holds where the user passes none.
        accepted: what is accepted, in words.
        parse: turns a Python value or a command-line string into the option's value, or raises ValueError.
        help: what it does and where it comes from.
    """

    name: str
    default: object
    accepted: str
    parse: Callable[[object], object]
    help: str


@dataclasses.dataclass(frozen=True, repr=False)
class Method:
    """A row of the tables above.

    Attributes:
        name: as people type it.
        aliases: other spellings.
        title: for pictures and tables.
        options: what can be set.
        plan: from the complete options to what the engine does.
        summary: what the method does, in one sentence.
        formula: the map before ReLU, in the notation of the tables.
        cost: forward passes per image, in words.
        source: the paper, and the version that is followed.
        use: when to choose it, in one sentence.
        needs_head: whether the bundle has to have a head; a cut inside a branch leaves none.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    options: tuple[Option, ...]
    plan: Callable[[Mapping[str, Any]], Plan | HeadPlan]
    summary: str
    formula: str
    cost: str
    source: str
    use: str
    needs_head: bool = False

    def __repr__(self) -> str:
        options = ", ".join(option.name for option in self.options) or "none"
        return f"<Method {self.name}, forward passes: {self.cost}; options: {options}>"


@dataclasses.dataclass(frozen=True)
class Settings:
    """A method with all its options.

    Attributes:
        method: the method.
        options: every option of the method, defaults included.
        plan: what the engine does.
    """

    method: Method
    options: dict[str, object]
    plan: Plan | HeadPlan


def _choice(name: str, *values: str, help: str) -> Option:  # noqa: A002
    def parse(value: object) -> object:
        if value not in values:
            raise ValueError
        return value

    return Option(name, values[0], ", ".join(values), parse, help)


def _number(range_: Range, default: int, help: str) -> Option:  # noqa: A002
    return Option(range_.name, default, range_.words, range_.parse, help)


# More samples than anybody's patience: papers take 35 and 10.
_SAMPLES: Final = Range("num_samples", 1, 10_000)
# In units of the model's input, whose values are a few at most.
_SPREAD: Final = Range("std", 0, 1_000_000, whole=False)


def _parse_flag(value: object) -> object:
    if isinstance(value, str):
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value.lower()]
    if not isinstance(value, bool):
        raise TypeError
    return value


def _parse_std(value: object) -> object:
    return value if value is None or value == "authors" else float(_SPREAD.parse(value))


_WEIGHTING: Final = _choice(
    "weighting",
    "probability",
    "logit-softmax",
    help="weight of a channel: the class probability (authors' code), or a softmax over channels of the class logit "
    "(the paper's Algorithm 1, torch-cam >= 0.3.2)",
)
_BASELINE: Final = _choice(
    "baseline",
    "none",
    "zeros",
    help="zeros: subtract the class probability of an all-zero image (the paper's increase of confidence); it cancels "
    "out with weighting=logit-softmax",
)
_NORMALIZE: Final = _choice(
    "normalize",
    "after-upsampling",
    "before-upsampling",
    help="scale each map to [0,1] at image size (authors' code) or at feature size (torch-cam)",
)
_MAPS: Final = _choice(
    "maps", "raw", "normalized", help="sum the raw maps, or those scaled to [0,1] (torch-cam before 0.4)"
)
_SHARED: Final = (_WEIGHTING, _BASELINE, _NORMALIZE, _MAPS)


def _shared(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "normalize": options["normalize"],
        "weighting": options["weighting"],
        "baseline": options["baseline"] == "zeros",
        "maps": options["maps"],
    }


def _scorecam(options: Mapping[str, Any]) -> Plan:
    return Plan(**_shared(options))


def _scorecampp(options: Mapping[str, Any]) -> Plan:
    plan = Plan(normalize=None, weighting=options["weighting"], baseline=options["baseline"] == "zeros")
    if options["gate"] == "minmax":
        maps: MapKind = "normalized" if options["gate_sum"] else "raw"
        return dataclasses.replace(plan, normalize="after-upsampling", maps=maps)
    return dataclasses.replace(plan, gate=options["gate"], gate_sum=options["gate_sum"])


def _sscam(options: Mapping[str, Any]) -> Plan:
    std = options["std"]
    on = options["noise"]
    if std is None:
        std = "authors" if on == "input" else 2.0
    if on == "activation" and std == "authors":
        raise OptionError(
            "sscam: std='authors' is the spread of a masked image; with noise='activation' std is a number"
        )
    return Plan(**_shared(options), noise=Noise(options["num_samples"], std, on, options["seed"]))


def _iscam(options: Mapping[str, Any]) -> Plan:
    samples = options["num_samples"]
    steps = range(1, samples + 1)
    if options["path"] == "linear":
        coefficients = tuple(i / samples for i in steps)
    else:
        coefficients = tuple(i * (i + 1) / (2 * samples) for i in steps)
    return Plan(**_shared(options), coefficients=coefficients)


def _reciprocam(options: Mapping[str, Any]) -> HeadPlan:
    return HeadPlan("recipro", kernel=options["kernel"], score=options["score"])


def _ablationcam(options: Mapping[str, Any]) -> HeadPlan:
    return HeadPlan("ablation", score=options["score"])


def _eigencam(options: Mapping[str, Any]) -> HeadPlan:
    return HeadPlan("eigen", center=options["center"])


def _cam(options: Mapping[str, Any]) -> HeadPlan:  # noqa: ARG001 - it has no options
    return HeadPlan("cam")


MASKED_METHODS: Final = (
    Method(
        "scorecam",
        ("score-cam",),
        "Score-CAM",
        _SHARED,
        _scorecam,
        summary="Masks the image with each channel's map. A channel weighs as much as the class probability it leaves.",
        formula="sum_k p(X * s(U(A_k)))[c] U(A_k)",
        cost="1 per channel",
        source="Wang et al., Score-CAM, CVPR workshops 2020; as in the authors' code",
        use="Choose it to compare with published Score-CAM results. Its maps are narrower than those of scorecam++.",
    ),
    Method(
        "scorecam++",
        ("scorecampp", "score-cam++"),
        "ScoreCAM++",
        (
            _choice(
                "gate",
                *GATES,
                "minmax",
                help="function that turns a map into a mask; features below zero give a negative mask",
            ),
            Option(
                "gate_sum",
                True,
                "true or false",
                _parse_flag,
                "sum the gated maps (the paper's figure 1), or the raw ones (for an ablation)",
            ),
            _WEIGHTING,
            _BASELINE,
        ),
        _scorecampp,
        summary="Score-CAM with tanh in place of the scaling to [0,1], in the masks and in the sum.",
        formula="sum_k p(X * tanh(U(A_k)))[c] tanh(U(A_k))",
        cost="1 per channel",
        source='Mitra et al., "Reliable or Deceptive?", arXiv 2404.19341; figure 1',
        use="The default. Its maps keep more of the class probability than those of scorecam, and are broader.",
    ),
    Method(
        "sscam",
        ("ss-cam",),
        "SS-CAM",
        (
            _number(_SAMPLES, 35, "noise samples per channel (N)"),
            Option(
                "std",
                None,
                f"'authors' or {_SPREAD.words}",
                _parse_std,
                "standard deviation of the noise; without it 'authors' for noise=input and 2.0 for noise=activation",
            ),
            _choice(
                "noise",
                "input",
                "activation",
                help="add noise to the masked image (the poster) or the mask (torch-cam)",
            ),
            _number(SEED, 0, "seed of the noise; the same seed gives the same map everywhere"),
            *_SHARED,
        ),
        _sscam,
        summary="Score-CAM, with each channel's weight averaged over noisy copies of the masked image.",
        formula="sum_k mean_i p(X * s(U(A_k)) + n_i)[c] U(A_k)",
        cost="35 per channel (num_samples)",
        source='Wang et al., SS-CAM, arXiv 2006.14255; the poster "Improved variants of Score-CAM"',
        use="Choose it to reproduce published results. It is slow: --sampling-error 0.2 stops sampling early.",
    ),
    Method(
        "iscam",
        ("is-cam",),
        "IS-CAM",
        (
            _number(_SAMPLES, 10, "steps per channel (N)"),
            _choice(
                "path",
                "cumulative",
                "linear",
                help="factor of step i: i(i+1)/(2N) (the poster's recurrence), or i/N (an integral)",
            ),
            *_SHARED,
        ),
        _iscam,
        summary="Score-CAM, with each channel's weight averaged over steps of the masked image's intensity.",
        formula="sum_k mean_i p(c_i X * s(U(A_k)))[c] U(A_k)",
        cost="10 per channel (num_samples)",
        source='Naidu et al., IS-CAM, arXiv 2010.03023; the poster "Improved variants of Score-CAM"',
        use="Choose it to reproduce published results. It is slow: --sampling-error 0.2 stops sampling early.",
    ),
)

HEAD_METHODS: Final = (
    Method(
        "recipro-cam",
        ("reciprocam",),
        "Recipro-CAM",
        (
            _choice(
                "kernel",
                "single",
                "gaussian",
                "gaussian-spread",
                help="features that are kept: one position (authors' code); a 3 x 3 Gaussian around it (openvino_xai "
                "for transformers); or one position spread by that Gaussian (the authors' is_gaussian)",
            ),
            _choice(
                "score",
                "probability",
                "logit",
                help="what a position is worth: the class probability (the authors), or the class logit",
            ),
        ),
        _reciprocam,
        summary="Keeps one position of the features at a time. A position is worth the class probability it leaves.",
        formula="p(A * k_ij)[c] at each position i, j",
        cost="1 of the head per position",
        source="Byun & Lee, arXiv 2209.14074, CVPR workshops 2024; as in the authors' code",
        use="Choose it for speed: it takes an eighth of the time of scorecam or less, and works with any head.",
        needs_head=True,
    ),
    Method(
        "ablation-cam",
        ("ablationcam",),
        "Ablation-CAM",
        (
            _choice(
                "score", "logit", "probability", help="score of the class, whose relative drop is the channel's weight"
            ),
        ),
        _ablationcam,
        summary="Sets one channel to zero at a time. A channel weighs as much as the class score drops.",
        formula="sum_k (y - y_k) / |y| A_k",
        cost="1 of the head per channel",
        source="Desai & Ramaswamy, Ablation-CAM, WACV 2020; but for the sign where y is negative",
        use="Choose it for speed where each channel should be tested, as Score-CAM does.",
        needs_head=True,
    ),
    Method(
        "eigen-cam",
        ("eigencam",),
        "Eigen-CAM",
        (
            Option(
                "center",
                False,
                "true or false",
                _parse_flag,
                "subtract the mean of each channel first (pytorch-grad-cam), or not (the paper)",
            ),
        ),
        _eigencam,
        summary="Projects the features on their first principal component. The map is the same for every class.",
        formula="sum_k v_k A_k",
        cost="none",
        source="Muhammad & Yeasin, Eigen-CAM, arXiv 2008.00299",
        use="Choose it to see where the features are active. It cannot say what speaks for a class.",
    ),
    Method(
        "cam",
        (),
        "CAM",
        (),
        _cam,
        summary="Weighs the channels by the classifier's last layer.",
        formula="sum_k w_kc A_k",
        cost="none per image; 1 of the head per channel, once",
        source="Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016",
        use="The quickest, for models that end in average pooling and one linear layer, such as ResNets.",
        needs_head=True,
    ),
)

METHODS: Final = (*MASKED_METHODS, *HEAD_METHODS)


def resolve_method(name: str, options: Mapping[str, object]) -> Settings:
    """A method by name with its options checked and completed.

    Args:
        name: name or alias, in any case.
        options: values, or the strings of the command line.

    Raises:
        OptionError: an unknown method or option, or a value that is not accepted; the message lists what is.
    """
    by_name = {spelling: method for method in METHODS for spelling in (method.name, *method.aliases)}
    method = by_name.get(name.lower()) if isinstance(name, str) else None
    if method is None:
        names = [item.name for item in METHODS]
        hint = did_you_mean(str(name), names)
        raise OptionError(f"unknown method {shown(name)}; accepted: {', '.join(names)}{hint}")
    known = {option.name: option for option in method.options}
    complete: dict[str, object] = {option.name: option.default for option in method.options}
    for key, value in options.items():
        if key not in known:
            hint = did_you_mean(key, known)
            raise OptionError(f"{method.name}: unknown option {key!r}; accepted: {', '.join(known) or 'none'}{hint}")
        try:
            complete[key] = known[key].parse(value)
        except (ValueError, TypeError, KeyError):
            raise OptionError(
                f"{method.name}: {key}={shown(value)} is not accepted; accepted: {known[key].accepted}"
            ) from None
    return Settings(method, complete, method.plan(complete))
