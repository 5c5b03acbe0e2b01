"""Find the normalisation that a graph begins with by running its front, and move it into the preprocessing.

Masks multiply the preprocessed image, whose zero has to be the mean colour. A graph that normalises inside takes its
mean from the image itself, so masks in front of it would hide to black. How a graph writes its normalisation does not
matter here: its front is run on colours and on noise, and what it does to them is read off.

1. Candidates are the tensors with the image's channels that all data pass, in front of the first layer.
2. The last one that is ``y = a x + b``, pixel for pixel and channel for channel, to float32's precision, is where the
   new graph begins: its nodes in front are dropped. What differs from pixel to pixel, as of a mean image, stays in the
   graph as a small ``Add``, and so does a negative sign.
3. Behind what is not done pixel for pixel (a resize, a crop, a clip, 8-bit integers) a candidate may still be
   ``y = a c + b`` for images of one colour c. Then the graph stays whole behind the inverse, ``x = x' std + mean``.
4. Where the channels are mixed, or become others, as of a grey image, the colour that becomes 0 is still the mean: the
   last tensor that has one tells, and the graph stays whole behind ``x = x' + mean``.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from ortcam.images.preprocessing import Preprocessing
from ortcam_export.graphs.normalisation.beginning import Taken, begin_at, hide_to, put_inverse
from ortcam_export.graphs.normalisation.forms import BENT, EXACT, Form, Layout
from ortcam_export.graphs.normalisation.front import Front
from ortcam_export.graphs.normalisation.probing import branch_forms, colour_form, mixed_form, pixel_forms

__all__ = ["Taken", "take_normalisation"]

Baseline = Literal["mean", "zero"] | Sequence[float]


def take_normalisation(
    model: ir.Model,
    layout: Layout,
    given: Preprocessing,
    baseline: Baseline | None = None,
) -> Taken:
    """Make a graph begin behind its own normalisation. Its input becomes the image float32 [N,C,H,W].

    Args:
        model: takes a floating image [N,C,H,W] or [N,H,W,C]; changed in place. Its weights may be external.
        layout: of the model's image.
        given: from a photograph to the model's image, NCHW whatever the layout.
        baseline: what masks hide to: the "mean", "zero", or a value per channel of `given`, in units of its mean.

    Returns:
        The preprocessing from a photograph to the new input, and what became part of it.
    """
    taken = _taken(model, layout, given)
    if baseline in (None, "mean"):
        return taken
    values = np.zeros(given.channels) if baseline == "zero" else np.asarray(baseline, np.float64)
    values = np.broadcast_to(values, given.channels)
    exchanged = taken.preprocessing.channel_order != given.channel_order
    return hide_to(model.graph, taken, values[::-1] if exchanged else values)


def _taken(model: ir.Model, layout: Layout, given: Preprocessing) -> Taken:
    """The same, with masks that hide to the mean."""
    front = Front(model, layout, given)
    forms = pixel_forms(front)
    notes: list[str] = []
    within = [form for form in forms if not form.trivial and front.has_colour(form.zero)]
    beyond = [form for form in forms if not form.trivial and not front.has_colour(form.zero)]
    plain = [form for form in forms if form.trivial and form.order == front.straight]
    if beyond and not within:
        # A mean that no pixel has comes of a wrong scale: taken, so that the check of the input's span sees it.
        if _is_scale_mistaken(beyond[-1], given):
            within = beyond
        else:
            notes.append(f"the graph's own normalisation is not taken for one: {front.describe_zero(beyond[-1])}")
    deepest = (within or plain)[-1]  # the image is one
    coloured = colour_form(front, behind=deepest)
    if coloured is not None:
        return put_inverse(front, coloured)
    if not within and not beyond and (mixed := mixed_form(front)) is not None:
        return put_inverse(front, mixed)
    frontier = [deepest] if np.abs(deepest.zero).max() > EXACT else branch_forms(front, deepest)
    return dataclasses.replace(begin_at(front, frontier), notes=(*notes, *_disagreement(front, frontier)))


def _disagreement(front: Front, frontier: list[Form]) -> list[str]:
    """Whether branches have different means, as a sentence."""
    first, *others = frontier
    span = front.span
    if all((np.abs(item.zero - first.zero) <= BENT * span).all() for item in others):
        return []
    return ["the graph's branches normalise differently: masks hide to the mean colour of the first"]


def _is_scale_mistaken(form: Form, given: Preprocessing) -> bool:
    """Whether a normalisation is one of bytes, and the preprocessing of [0,1], or the other way round."""
    white = np.abs(given.values()).max()
    return bool(np.abs(form.zero).max() > 8 * white or np.abs(form.mean_gain).max() * white < 0.05)
