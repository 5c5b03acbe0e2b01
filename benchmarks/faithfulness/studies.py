"""The questions: each a list of methods on some models, answered by one table per model."""

import dataclasses
import math
from typing import Final

from ortcam.bundle import GATES

SEED: Final = 0
KEPT_OUT: Final = 200  # photographs, the first by the seed, that int8 is not calibrated on
SAMPLES: Final = (1, 2, 5, 10, 20, 35)
METHODS: Final = ("scorecam", "scorecam++", "recipro-cam", "ablation-cam", "eigen-cam")
FINER: Final = 4  # steps of insertion and deletion in one of the coarse ones, 25 instead of 100
COARSE_STEP: Final = FINER * math.ceil(224 * 224 / 100)


@dataclasses.dataclass(frozen=True)
class Study:
    """A question that one table a model answers.

    Attributes:
        name: in `--studies`.
        question: that it answers.
        methods: as `ortcam evaluate -m` takes them; the first is what the others are compared with.
        models: of SUBJECTS.
        images: how many, where nothing else is said.
        protocol: of `ortcam evaluate`.
        metrics: of `ortcam evaluate`; None for all.
        precisions: that the bundle has to have.
        alike: the method whose maps the others' are correlated with; None leaves that out.
        randomize: images for the randomised-weights check.
        step: pixels that a step of insertion and deletion changes; None for a hundredth of them.
    """

    name: str
    question: str
    methods: tuple[str, ...]
    models: tuple[str, ...]
    images: int = 100
    protocol: str = "soft-map"
    metrics: tuple[str, ...] | None = None
    precisions: tuple[str, ...] = ()
    alike: str | None = None
    randomize: int | None = None
    step: int | None = None


STUDIES: Final = {
    study.name: study
    for study in (
        Study(
            "methods",
            "Which method, on every metric?",
            METHODS,
            ("squeezenet1_1",),
            alike="scorecam",
            randomize=10,
        ),
        Study(
            "models",
            "The same on other models (insertion and deletion in 25 steps)",
            METHODS,
            ("mobilenet_v2", "resnet18", "deit_tiny"),
            alike="scorecam",
            step=COARSE_STEP,
        ),
        Study(
            "sampled",
            "Do SS-CAM and IS-CAM gain what their passes cost? (budgets of 12 %, completed)",
            ("scorecam:budget=0.12", "sscam:budget=0.12", "iscam:budget=0.12", "iscam:path=linear:budget=0.12"),
            ("squeezenet1_1", "mobilenet_v2"),
            images=40,
            alike="scorecam:budget=0.12",
        ),
        Study(
            "gates",
            "ScoreCAM++: which gate, and in the mask only or also in the sum? (budgets of 25 %, completed)",
            (
                *(f"scorecam++:gate={gate}:budget=0.25" for gate in (*GATES, "minmax")),
                "scorecam++:gate_sum=false:budget=0.25",
                "scorecam:budget=0.25",
            ),
            ("squeezenet1_1", "mobilenet_v2"),
            alike="scorecam:budget=0.25",
        ),
        Study(
            "samples",
            "SS-CAM: how many samples, and noise on what? (budgets of 12 %, completed)",
            (
                *(f"sscam:num_samples={count}:budget=0.12" for count in reversed(SAMPLES)),
                "sscam:noise=activation:num_samples=35:budget=0.12",
                "sscam:seed=1:num_samples=35:budget=0.12",
            ),
            ("squeezenet1_1",),
            images=40,
            metrics=("confidence", "adcc", "pointing"),
            alike=f"sscam:num_samples={SAMPLES[-1]}:budget=0.12",
        ),
        Study(
            "published",
            "ResNet-18 and the published ADCC figures",
            ("scorecam:maps=normalized", "scorecam"),
            ("resnet18",),
            protocol="adcc",
        ),
        Study(
            "approximations",
            "What do precisions and budgets do to faithfulness?",
            (
                "scorecam",
                "scorecam:precision=int8",
                "scorecam:precision=fp16",
                "scorecam:budget=0.25",
                "scorecam:budget=0.12",
                "scorecam:budget=0.12:precision=int8",
            ),
            ("squeezenet1_1", "mobilenet_v2"),
            images=60,
            precisions=("fp32", "fp16", "int8"),
            alike="scorecam",
        ),
    )
}
