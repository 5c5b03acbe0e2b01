"""The method made for transformers: what each patch gives to the class logit through the attention behind the layer.

Behind the layer lies one attention: o_hq = sum_t a_hqt v_ht, with heads h, queries q, tokens t. The bundle's gradient
graph has, for each head and token,

    r_ht = sum_q a_hqt dy/da_hqt = <v_ht, dy/dv_ht>,

attention times its gradient. With the attention held where it is, and what lies behind it as its tangent, r_ht is what
token t adds to the logit through head h; the other sign takes away.

==================  =====================================  =======================
method              map before ReLU, at the place of t     backward passes
==================  =====================================  =======================
``grad-attention``  sum_h r_ht; option: sum_h relu(r_ht)   1 per class
==================  =====================================  =======================
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ortcam.methods.head import HeadInputs, HeadScores
from ortcam.methods.method import Method, Option

__all__ = ["ATTENTION_METHODS", "RELEVANCE", "Positive", "grad_attention"]

# The output of the gradient graph, float32 [K,heads,T].
RELEVANCE: Final = "attention_relevance"

# What the ReLU is applied to.
Positive = Literal["sum", "heads"]


def grad_attention(relevance: NDArray[np.float32], *, positive: Positive = "sum") -> NDArray[np.float64]:
    """Sum over the heads what each patch gives: float64 [K,...], the map before ReLU.

    - ``positive="sum"``: sum_h r_h, where heads that speak against the class take away from those that speak for it.
    - ``positive="heads"``: sum_h relu(r_h). Where only the class token is read behind the attention, each r_h has one
      term, and this is mean_h relu(a dy/da) of Chefer et al. (Generic Attention-model Explainability, ICCV 2021) for
      one layer, times the number of heads.

    Args:
        relevance: r, float32 [K,heads,...].
        positive: what the ReLU is applied to.

    Example:
        >>> grad_attention(np.array([[[3.0, -1.0], [-2.0, -1.0]]], np.float32)).tolist()
        [[1.0, -2.0]]
    """
    kept = relevance.astype(np.float64)
    if positive == "heads":
        kept = np.maximum(kept, 0)
    total: NDArray[np.float64] = kept.sum(axis=1)
    return total


def _compute(inputs: HeadInputs, options: Mapping[str, Any]) -> HeadScores:
    derivative = inputs.derivative
    assert derivative is not None  # checked with the request
    channels, height, width = inputs.maps.shape
    prefix = len(inputs.prefix)

    def make(batch: NDArray[np.float32]) -> NDArray[np.float64]:
        relevance = derivative.output_at(batch, RELEVANCE)[:, :, prefix:]
        places = relevance.reshape(*relevance.shape[:2], height, width)
        return grad_attention(places, positive=options["positive"])

    raw = np.concatenate(derivative.each(inputs.seeds, make))
    return HeadScores(raw, np.zeros((len(raw), channels)))


ATTENTION_METHODS: Final = (
    Method(
        name="grad-attention",
        title="Gradient x attention",
        aliases=("gradattention", "attention-gradient"),
        options=(
            Option.choice(
                "positive",
                "sum",
                "heads",
                help="what the ReLU is applied to: the sum over the heads; or each head, as Chefer et al. do",
            ),
        ),
        compute=_compute,
        summary="Sums what each patch gives to the class logit through the attention behind the layer.",
        formula="sum_h sum_q a_hqt dy/da_hqt",
        cost="none; 1 backward of the head per class",
        source="Chefer et al., ICCV 2021, one layer, with the ReLU behind the sum over the heads",
        use="Choose it for vision transformers, for speed and for the order of pixels; its maps are narrow.",
        needs_gradient=True,
        needs_attention=True,
        takes_scores=True,
    ),
)
