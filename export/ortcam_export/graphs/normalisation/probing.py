"""Read forms off a front by running it on colours and on noise."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.graphs.normalisation.forms import (
    BENT,
    EXACT,
    Form,
    Layout,
    as_channels,
    follows,
    order_of,
    pixel_form,
)
from ortcam_export.graphs.normalisation.front import Front
from ortcam_export.graphs.normalisation.operators import MIXERS, branch_from, is_quantized, keeps_colours

__all__ = ["branch_forms", "colour_form", "mixed_form", "pixel_forms"]

_GREYS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_SEED: Final = 0


def pixel_forms(front: Front, values: Sequence[ir.Value] | None = None) -> list[Form]:
    """The candidates, or these tensors, that are affine in the image pixel for pixel."""
    values = front.candidates if values is None else values
    span = front.span
    reach = np.maximum(np.abs(front.white), np.abs(front.black)).max()
    size = front.given.height, front.given.width
    generator = np.random.default_rng(_SEED)
    low, high = (front.black - span)[:, None, None], (front.white + span)[:, None, None]
    count = front.channels
    if list(values) == [front.image]:  # which is itself
        one = np.ones((count, 1, 1))
        return [Form(front.image, front.layout, front.straight, one, np.zeros_like(one))]
    noise = [low + (high - low) * generator.random((count, *size)) for _ in range(2)]
    each = np.arange(count)[:, None, None]
    units = [np.where(each == channel, reach, 0.0) for channel in range(count)]
    probes = [np.broadcast_to(probe, (count, *size)).astype(np.float32) for probe in (np.zeros_like(each), *units)]
    probes += [probe.astype(np.float32) for probe in noise]
    forms = []
    for value, responses in front.run(values, probes):
        laid_out = as_channels(responses, count, size)
        if laid_out is None:
            continue
        layout, (zero, *others) = laid_out
        slopes = np.stack([response - zero for response in others[:count]], axis=1) / float(reach)
        form = pixel_form(value, layout, slopes, zero)
        if form is not None and all(
            follows(form, probe, response) for probe, response in zip(probes[1 + count :], others[count:], strict=True)
        ):
            forms.append(form)
    return forms


def colour_form(front: Front, behind: Form) -> Form | None:
    """The last candidate behind another that is affine in the colour of a one-colour image.

    None if there is none, or if it has the same zero and gain as the other. The other can then be taken itself.
    """
    deeper = front.candidates[front.candidates.index(behind.value) + 1 :]
    deeper = [value for value in deeper if keeps_colours(value, front.data)]
    found = None
    for value, responses in front.run(deeper, _one_colour(front, _colours(front))):
        laid_out = as_channels(responses, front.channels, None)
        if laid_out is None:
            continue
        form = _form_of_colours(front, value, laid_out[0], [np.median(item, axis=(1, 2)) for item in laid_out[1]])
        if form is not None and front.has_colour(form.zero):
            found = form
    if found is None:
        return None
    zero, gain = behind.zero, behind.mean_gain
    span = front.span
    # A step of integers is no other colour.
    tolerance = BENT if is_quantized(found.value, front.data) else EXACT
    same = (np.abs(found.zero - zero) <= tolerance * span).all() and (
        np.abs(found.mean_gain - gain) <= tolerance * np.abs(gain)
    ).all()
    return None if same else found


def mixed_form(front: Front) -> Form | None:
    """The image with, as its mean, the colour that becomes 0 in the last candidate that has such a colour.

    Candidates may have any shape. Their elements have to be affine in the colour of a one-colour image. If several
    colours become 0, a grey one is taken. None if there is none, or if it is black.
    """
    colours = _colours(front)
    values = [value for value in front.candidates[1:] if keeps_colours(value, front.data, MIXERS)]
    found = None
    for value, responses in front.run(values, _one_colour(front, colours)):
        zero = _zero_of(front, colours, np.stack([response.ravel() for response in responses]))
        if zero is not None:
            found = value, zero
    if found is None or np.abs(found[1] - front.black).max() <= BENT * front.span.max():
        return None
    value, zero = found
    return Form(value, front.layout, front.straight, np.ones((front.channels, 1, 1)), -zero[:, None, None])


def _zero_of(front: Front, colours: NDArray[np.float64], responses: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The colour at which all elements of a tensor, [K,elements] for colours [K,C], are 0. None if there is none."""
    terms = np.concatenate([colours, np.ones((len(colours), 1))], axis=1)
    found: NDArray[np.float64] = np.linalg.lstsq(terms, responses, rcond=None)[0]
    largest = np.abs(responses).max()
    if not np.isfinite(largest) or np.abs(terms @ found - responses).max() > EXACT * largest:
        return None
    slopes, offsets = found[:-1].T, found[-1]
    moves = np.abs(slopes).max(axis=1) > EXACT * np.abs(slopes).max()
    if not moves.any():
        return None
    slopes, offsets = slopes[moves], offsets[moves]
    grey = slopes @ (front.white - front.black)
    level = -(slopes @ front.black + offsets) @ grey / max(float(grey @ grey), 1e-30)
    nearest: NDArray[np.float64] = np.linalg.lstsq(slopes, -offsets, rcond=None)[0]
    for colour in (front.black + level * (front.white - front.black), nearest):
        if np.abs(slopes @ colour + offsets).max() <= EXACT * largest and front.has_colour(colour):
            return colour
    return None


def _colours(front: Front) -> NDArray[np.float64]:
    """Greys from black to white, then one channel alone (red, green and blue), as the image has them: [K,C]."""
    greys = [front.black + grey * (front.white - front.black) for grey in _GREYS]
    each = np.arange(front.channels)
    single = [np.where(each == channel, front.white, front.black) for channel in each]
    return np.stack([*greys, *single])


def _one_colour(front: Front, colours: NDArray[np.float64]) -> list[NDArray[np.float32]]:
    """An image [C,H,W] of each colour."""
    shape = front.channels, front.given.height, front.given.width
    return [np.broadcast_to(colour[:, None, None], shape).astype(np.float32) for colour in colours]


def branch_forms(front: Front, form: Form) -> list[Form]:
    """The forms of the branches that begin at a form, if each normalises by itself; else the form."""
    users = [user for user, _ in form.value.uses() if user in front.data]
    if len(set(users)) < 2 or front.many:
        return [form]
    chains = {user: list(branch_from(user, front.data, front.channels)) for user in dict.fromkeys(users)}
    known = {item.value: item for item in pixel_forms(front, [value for chain in chains.values() for value in chain])}
    ends = []
    for chain in chains.values():
        affine = [known[value] for value in chain if value in known]
        # One that only scales has no mean of its own.
        centred = [item for item in affine if np.abs(item.zero).max() > EXACT and front.has_colour(item.zero)]
        if centred:
            ends.append(centred[-1])
    if not ends:
        return [form]
    # Branches that do not normalise, and the form itself, come last: the first one decides.
    return [*ends, *([form] if len(ends) < len(chains) else [])]


def _form_of_colours(front: Front, value: ir.Value, layout: Layout, found: list[NDArray[np.float64]]) -> Form | None:
    """A form from a tensor's colours, float64 [C] each, for the greys and then for one channel each."""
    greys, singles = found[: len(_GREYS)], found[len(_GREYS) :]
    slopes = np.stack([single - greys[0] for single in singles], axis=1)
    order = order_of(np.abs(slopes), BENT)
    if order is None:
        return None
    rise = slopes[range(len(order)), order]
    for grey, response in zip(_GREYS, greys, strict=True):
        if (np.abs(response - greys[0] - grey * rise) > BENT * np.abs(rise)).any():
            return None
    black, white = front.black[list(order)], front.white[list(order)]
    gain = rise / (white - black)
    offset = greys[0] - gain * black
    return Form(value, layout, order, gain[:, None, None], offset[:, None, None])
