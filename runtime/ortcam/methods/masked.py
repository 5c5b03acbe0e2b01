"""The methods that mask the image, as data: what each masks with, how it weighs, what it sums.

A new one is a row and a function from its options to a `Plan`, not a new loop.

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
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from ortcam.bundle import GATES
from ortcam.errors import OptionError
from ortcam.methods.method import MapKind, Method, Noise, Option, Plan
from ortcam.support.ranges import SEED, Range

__all__ = ["MASKED_METHODS"]


# More samples than anybody's patience: papers take 35 and 10.
_MOST_SAMPLES: Final = 10_000
# In units of the model's input, whose values are a few at most.
_SPREAD: Final = Range("std", 0, 1_000_000, whole=False)


def _parse_std(value: object) -> object:
    return value if value is None or value == "authors" else float(_SPREAD.parse(value))


_WEIGHTING: Final = Option.choice(
    "weighting",
    "probability",
    "logit-softmax",
    help="weight of a channel: the class probability (authors' code), or a softmax over channels of the class logit "
    "(the paper's Algorithm 1, torch-cam >= 0.3.2)",
)
_BASELINE: Final = Option.choice(
    "baseline",
    "none",
    "zeros",
    help="zeros: subtract the class probability of an all-zero image (the paper's increase of confidence); it cancels "
    "out with weighting=logit-softmax",
)
_NORMALIZE: Final = Option.choice(
    "normalize",
    "after-upsampling",
    "before-upsampling",
    help="scale each map to [0,1] at image size (authors' code) or at feature size (torch-cam)",
)
_MAPS: Final = Option.choice(
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


MASKED_METHODS: Final = (
    Method(
        name="scorecam",
        title="Score-CAM",
        aliases=("score-cam",),
        options=_SHARED,
        plan=_scorecam,
        summary="Masks the image with each channel's map. A channel weighs as much as the class probability it leaves.",
        formula="sum_k p(X * s(U(A_k)))[c] U(A_k)",
        cost="1 per channel",
        source="Wang et al., Score-CAM, CVPR workshops 2020; as in the authors' code",
        use="Choose it to compare with published Score-CAM results. Its maps are narrower than those of scorecam++.",
    ),
    Method(
        name="scorecam++",
        title="ScoreCAM++",
        aliases=("scorecampp", "score-cam++"),
        options=(
            Option.choice(
                "gate",
                *GATES,
                "minmax",
                help="function that turns a map into a mask; features below zero give a negative mask",
            ),
            Option.flag(
                "gate_sum", True, help="sum the gated maps (the paper's figure 1), or the raw ones (for an ablation)"
            ),
            _WEIGHTING,
            _BASELINE,
        ),
        plan=_scorecampp,
        summary="Score-CAM with tanh in place of the scaling to [0,1], in the masks and in the sum.",
        formula="sum_k p(X * tanh(U(A_k)))[c] tanh(U(A_k))",
        cost="1 per channel",
        source='Mitra et al., "Reliable or Deceptive?", arXiv 2404.19341; figure 1',
        use="Its maps keep more of the class probability than those of scorecam, and are broader.",
    ),
    Method(
        name="sscam",
        title="SS-CAM",
        aliases=("ss-cam",),
        options=(
            Option.number("num_samples", 35, least=1, most=_MOST_SAMPLES, help="noise samples per channel (N)"),
            Option(
                "std",
                None,
                f"'authors' or {_SPREAD.words}",
                _parse_std,
                "standard deviation of the noise; without it 'authors' for noise=input and 2.0 for noise=activation",
            ),
            Option.choice(
                "noise",
                "input",
                "activation",
                help="add noise to the masked image (the poster) or the mask (torch-cam)",
            ),
            Option.number(
                "seed",
                0,
                least=SEED.least,
                most=SEED.most,
                help="seed of the noise; the same seed gives the same map everywhere",
            ),
            *_SHARED,
        ),
        plan=_sscam,
        summary="Score-CAM, with each channel's weight averaged over noisy copies of the masked image.",
        formula="sum_k mean_i p(X * s(U(A_k)) + n_i)[c] U(A_k)",
        cost="35 per channel (num_samples)",
        source='Wang et al., SS-CAM, arXiv 2006.14255; the poster "Improved variants of Score-CAM"',
        use="Choose it to reproduce published results. It is slow: --sampling-error 0.2 stops sampling early.",
    ),
    Method(
        name="iscam",
        title="IS-CAM",
        aliases=("is-cam",),
        options=(
            Option.number("num_samples", 10, least=1, most=_MOST_SAMPLES, help="steps per channel (N)"),
            Option.choice(
                "path",
                "cumulative",
                "linear",
                help="factor of step i: i(i+1)/(2N) (the poster's recurrence), or i/N (an integral)",
            ),
            *_SHARED,
        ),
        plan=_iscam,
        summary="Score-CAM, with each channel's weight averaged over steps of the masked image's intensity.",
        formula="sum_k mean_i p(c_i X * s(U(A_k)))[c] U(A_k)",
        cost="10 per channel (num_samples)",
        source='Naidu et al., IS-CAM, arXiv 2010.03023; the poster "Improved variants of Score-CAM"',
        use="Choose it to reproduce published results. It is slow: --sampling-error 0.2 stops sampling early.",
    ),
)
