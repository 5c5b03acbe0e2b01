"""Two methods that a third party might add: all that it takes is in this file."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ortcam.methods import HeadInputs, HeadScores, Method, Option, Plan


def plan(options: Mapping[str, Any]) -> Plan:
    """Mask with half-strength maps, `steps` times brighter each time."""
    steps = options["steps"]
    return Plan(normalize="before-upsampling", coefficients=tuple((step + 1) / steps / 2 for step in range(steps)))


def compute(inputs: HeadInputs, options: Mapping[str, Any]) -> HeadScores:
    """Weigh all channels by the class probability that the head gives for dimmed features."""
    dimmed = np.float32(options["dimming"]) * inputs.maps
    scores = inputs.head.scores(
        1, lambda _: dimmed[None], prefix=inputs.prefix, targets=inputs.targets, score=options["score"]
    )
    weights = np.repeat(scores.T, len(inputs.maps), axis=1)
    return HeadScores(np.tensordot(weights, inputs.maps.astype(np.float64), axes=1), weights)


MASKED = Method(
    "toy-mask",
    "Toy mask",
    "Score-CAM with darker masks.",
    aliases=("toymask",),
    options=(Option.number("steps", 1, least=1, most=9, help="masks per channel"),),
    plan=plan,
    formula="sum_k p(X * s(U(A_k)) / 2)[c] U(A_k)",
    cost="1 per channel",
    source="this file",
    use="Choose it to see how a method is added.",
)
HEAD_ONLY = Method(
    "toy-head",
    "Toy head",
    "Weighs all channels by the class probability of dimmed features.",
    options=(
        Option.number("dimming", 0.5, least=0, most=1, whole=False, help="factor on the features"),
        Option.choice("score", "probability", "logit", help="of the class"),
    ),
    compute=compute,
    formula="p(A / 2)[c] sum_k A_k",
    cost="1 of the head",
    source="this file",
    use="Choose it to see how a method is added.",
    needs_head=True,
)

TOYS = [MASKED, HEAD_ONLY]
