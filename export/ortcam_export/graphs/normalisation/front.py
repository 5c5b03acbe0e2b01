"""The normalisation that a graph begins with: found by running the graph's front, and moved into the preprocessing.

Masks multiply the preprocessed image, whose zero has to be the mean colour. A graph that normalises inside takes its
mean from the image itself, so masks in front of it would hide to black. How a graph writes its normalisation does not
matter here: its front is run on colours and on noise, and what it does to them is read off.

1. Candidates are the tensors with three channels that all data pass, in front of the first layer.
2. The last one that is ``y = a x + b``, pixel for pixel and channel for channel, to float32's precision, is where the
   new graph begins: its nodes in front are dropped. What differs from pixel to pixel, as of a mean image, stays in the
   graph as a small ``Add``, and so does a negative sign.
3. Behind what is not done pixel for pixel (a resize, a crop, a clip, 8-bit integers) a candidate may still be
   ``y = a c + b`` for pictures of one colour c. Then the graph stays whole behind the inverse, ``x = x' std + mean``.
4. Where the channels are mixed, or are not three, as of a grey image, the colour that becomes 0 is still the mean: the
   last tensor that has one tells, and the graph stays whole behind ``x = x' + mean``.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from ortcam.images.preprocessing import PLANES, Preprocessing
from ortcam_export.graphs.builder import add_constant
from ortcam_export.graphs.surgery import data_nodes, extract, inputs_of
from ortcam_export.sources.onnx_files.reading import TO_NHWC

__all__ = ["Taken", "take_normalisation"]

_Layout = Literal["nchw", "nhwc"]
_Order = tuple[int, int, int]

# Float32 sums of a few terms: their rounding, relative to the largest of them, and some room.
_EXACT: Final = 2.0**-18
# How far a step of 8-bit integers, or a few of them, may bend a line, relative to the way from black to white.
_BENT: Final = 2.0**-6
# A mean that is closer to a short number than float32 can tell pixels apart, relative to white, is taken for it.
_SHORT: Final = 2.0**-22
_GREYS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
# Of one whole number: far above float32's error, and far below what a mask is worth. White in steps is a float16, too.
_STEPS: Final = 128
_SEED: Final = 0
_CANDIDATES: Final = 64

_LAYERS: Final = ("Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "QLinearConv")
_MOVES: Final = (
    *("Cast", "CastLike", "Concat", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"),
    *("Split", "SplitToSequence", "SequenceAt", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"),
)
# What keeps a picture of one colour one of one colour, edges aside.
_COLOUR_OPERATORS: Final = frozenset(
    (
        *_MOVES,
        *("Add", "AveragePool", "BatchNormalization", "CenterCropPad", "Clip", "DequantizeLinear", "Div", "Floor"),
        *("Max", "Min", "Mul", "Neg", "Pad", "QuantizeLinear", "Resize", "Round", "Sub", "Upsample"),
    )
)
# What makes fewer channels of three, or others.
_MIXERS: Final = frozenset(("Einsum", "MatMul", "Mean", "ReduceMean", "ReduceSum", "Sum"))


@dataclasses.dataclass(frozen=True)
class Taken:
    """What `take_normalisation` did.

    Attributes:
        preprocessing: from a photograph to the graph's new input.
        operators: of the normalisation, in words; "" where the graph has none.
        dropped: whether these operators are gone; they stay where their inverse was put in front of them.
        notes: what a user should know beyond that, a sentence each.
    """

    preprocessing: Preprocessing
    operators: str = ""
    dropped: bool = True
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Form:
    """A tensor as a function of the image: channel j of it is gain[j] * x[order[j]] + offset[j].

    Attributes:
        value: the tensor.
        layout: of its dimensions.
        order: which channel of the image each of its channels is.
        gain: float64 [3,H,W], or [3,1,1] where only colours are known.
        offset: the same.
    """

    value: ir.Value
    layout: _Layout
    order: _Order
    gain: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def mean_gain(self) -> NDArray[np.float64]:
        """float64 [3], of the channels of the image."""
        return _unordered(np.abs(self.gain).mean(axis=(1, 2)), self.order)

    @property
    def zero(self) -> NDArray[np.float64]:
        """The colour of the image that becomes 0: float64 [3], of the channels of the image."""
        return _unordered((-self.offset / self.gain).mean(axis=(1, 2)), self.order)

    @property
    def trivial(self) -> bool:
        """Whether it is the image itself, its channels in any order."""
        return bool(np.abs(self.gain - 1).max() <= _EXACT and np.abs(self.offset).max() <= _EXACT)


def take_normalisation(model: ir.Model, layout: _Layout, given: Preprocessing) -> Taken:
    """Make a graph begin behind its own normalisation; its input becomes the image float32 [N,3,H,W].

    Args:
        model: takes a floating image [N,3,H,W] or [N,H,W,3]; changed in place. Its weights may be external.
        layout: of the model's image.
        given: from a photograph to the model's image, NCHW whatever the layout.

    Returns:
        The preprocessing from a photograph to the new input, and what became part of it.
    """
    front = _Front(model, layout, given)
    forms = front.pixel_forms()
    notes: list[str] = []
    within = [form for form in forms if not form.trivial and front.has_colour(form.zero)]
    beyond = [form for form in forms if not form.trivial and not front.has_colour(form.zero)]
    plain = [form for form in forms if form.trivial and form.order == (0, 1, 2)]
    if beyond and not within:
        # A mean that no pixel has comes of a wrong scale: taken, so that the check of the input's span sees it.
        if _is_scale_mistaken(beyond[-1], given):
            within = beyond
        else:
            notes.append(f"the graph's own normalisation is not taken for one: {front.describe_zero(beyond[-1])}")
    deepest = (within or plain)[-1]  # the image is one
    coloured = front.colour_form(behind=deepest)
    if coloured is not None:
        return front.put_inverse(coloured)
    if not within and not beyond and (mixed := front.mixed_form()) is not None:
        return front.put_inverse(mixed)
    frontier = [deepest] if np.abs(deepest.zero).max() > _EXACT else front.branches(deepest)
    return dataclasses.replace(front.begin_at(frontier), notes=(*notes, *front.disagreement(frontier)))


class _Front:
    """The nodes between an image and the first layer, and what they do to it.

    Args:
        model: whose first input is the image.
        layout: of the image.
        given: from a photograph to the image.
    """

    def __init__(self, model: ir.Model, layout: _Layout, given: Preprocessing) -> None:
        self._model = model
        self._graph = model.graph
        self._image = model.graph.inputs[0]
        self._layout: _Layout = layout
        self._given = given
        values = given.values().astype(np.float64)
        self._black, self._white = values[:, 0], values[:, -1]
        # What the graph rounds may depend on them.
        self._whole_numbers = bool((values == np.rint(values)).all())
        self._data = data_nodes(self._graph)
        self._candidates = list(itertools.islice(_until_first_layer(self._image, self._data), _CANDIDATES))

    # What the tensors are.

    def pixel_forms(self, values: Sequence[ir.Value] | None = None) -> list[_Form]:
        """Those of the candidates (or of these tensors) that are affine in the image, pixel for pixel."""
        values = self._candidates if values is None else values
        span = np.abs(self._white - self._black)
        reach = np.maximum(np.abs(self._white), np.abs(self._black)).max()
        size = self._given.height, self._given.width
        generator = np.random.default_rng(_SEED)
        low, high = (self._black - span)[:, None, None], (self._white + span)[:, None, None]
        noise = [low + (high - low) * generator.random((3, *size)) for _ in range(2)]
        units = [np.where(np.arange(3)[:, None, None] == channel, reach, 0.0) for channel in range(3)]
        probes = [
            np.broadcast_to(probe, (3, *size)).astype(np.float32) for probe in (np.zeros(3)[:, None, None], *units)
        ]
        probes += [probe.astype(np.float32) for probe in noise]
        forms = []
        for value, responses in self._run(values, probes):
            laid_out = _as_channels(responses, size)
            if laid_out is None:
                continue
            layout, (zero, *others) = laid_out
            slopes = np.stack([response - zero for response in others[:3]], axis=1) / float(reach)
            form = _pixel_form(value, layout, slopes, zero)
            if form is not None and all(
                _follows(form, probe, response) for probe, response in zip(probes[4:], others[3:], strict=True)
            ):
                forms.append(form)
        return forms

    def colour_form(self, behind: _Form) -> _Form | None:
        """The last candidate behind another that is affine in the colour of a picture of one colour.

        None where there is none, or where it has the same zero and gain as the other, which then can be taken itself.
        """
        deeper = self._candidates[self._candidates.index(behind.value) + 1 :]
        deeper = [value for value in deeper if self._keeps_colours(value)]
        found = None
        for value, responses in self._run(deeper, self._one_colour(self._colours())):
            laid_out = _as_channels(responses, None)
            if laid_out is None:
                continue
            form = self._form_of_colours(value, laid_out[0], [np.median(item, axis=(1, 2)) for item in laid_out[1]])
            if form is not None and self.has_colour(form.zero):
                found = form
        if found is None:
            return None
        zero, gain = behind.zero, behind.mean_gain
        span = np.abs(self._white - self._black)
        # A step of integers is no other colour.
        tolerance = _BENT if self._is_quantized(found.value) else _EXACT
        same = (np.abs(found.zero - zero) <= tolerance * span).all() and (
            np.abs(found.mean_gain - gain) <= tolerance * np.abs(gain)
        ).all()
        return None if same else found

    def mixed_form(self) -> _Form | None:
        """The image as one whose mean is the colour that the last candidate which has such a colour makes 0.

        Candidates of any shape count, whose elements are affine in the colour of a picture of one colour. Of several
        colours a grey one is taken. None where there is none, or where it is black.
        """
        colours = self._colours()
        values = [value for value in self._candidates[1:] if self._keeps_colours(value, _MIXERS)]
        found = None
        for value, responses in self._run(values, self._one_colour(colours)):
            zero = self._zero_of(colours, np.stack([response.ravel() for response in responses]))
            if zero is not None:
                found = value, zero
        if found is None or np.abs(found[1] - self._black).max() <= _BENT * np.abs(self._white - self._black).max():
            return None
        value, zero = found
        return _Form(value, self._layout, (0, 1, 2), np.ones((3, 1, 1)), -zero[:, None, None])

    def _zero_of(self, colours: NDArray[np.float64], responses: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The colour at which all elements of a tensor, [K,elements] for colours [K,3], are 0; None where none is."""
        terms = np.concatenate([colours, np.ones((len(colours), 1))], axis=1)
        found: NDArray[np.float64] = np.linalg.lstsq(terms, responses, rcond=None)[0]
        largest = np.abs(responses).max()
        if not np.isfinite(largest) or np.abs(terms @ found - responses).max() > _EXACT * largest:
            return None
        slopes, offsets = found[:3].T, found[3]
        moves = np.abs(slopes).max(axis=1) > _EXACT * np.abs(slopes).max()
        if not moves.any():
            return None
        slopes, offsets = slopes[moves], offsets[moves]
        grey = slopes @ (self._white - self._black)
        level = -(slopes @ self._black + offsets) @ grey / max(float(grey @ grey), 1e-30)
        nearest: NDArray[np.float64] = np.linalg.lstsq(slopes, -offsets, rcond=None)[0]
        for colour in (self._black + level * (self._white - self._black), nearest):
            if np.abs(slopes @ colour + offsets).max() <= _EXACT * largest and self.has_colour(colour):
                return colour
        return None

    def _colours(self) -> NDArray[np.float64]:
        """Greys from black to white, then red, green and blue, as the image has them: float64 [K,3]."""
        greys = [self._black + grey * (self._white - self._black) for grey in _GREYS]
        single = [np.where(np.arange(3) == channel, self._white, self._black) for channel in range(3)]
        return np.stack([*greys, *single])

    def _one_colour(self, colours: NDArray[np.float64]) -> list[NDArray[np.float32]]:
        """A picture [3,H,W] of each colour."""
        shape = 3, self._given.height, self._given.width
        return [np.broadcast_to(colour[:, None, None], shape).astype(np.float32) for colour in colours]

    def branches(self, form: _Form) -> list[_Form]:
        """A form, or where several branches begin at it, each with a normalisation of its own, theirs."""
        users = [user for user, _ in form.value.uses() if user in self._data]
        if len(set(users)) < 2:
            return [form]
        chains = {user: list(_chain(user, self._data)) for user in dict.fromkeys(users)}
        known = {item.value: item for item in self.pixel_forms([value for chain in chains.values() for value in chain])}
        ends = []
        for chain in chains.values():
            affine = [known[value] for value in chain if value in known]
            # One that only scales has no mean of its own.
            centred = [item for item in affine if np.abs(item.zero).max() > _EXACT and self.has_colour(item.zero)]
            if centred:
                ends.append(centred[-1])
        if not ends:
            return [form]
        # Branches that do not normalise, and the form itself, come last: the first one decides.
        return [*ends, *([form] if len(ends) < len(chains) else [])]

    def has_colour(self, colour: NDArray[np.float64]) -> bool:
        """Whether a pixel of the image can have a colour, float64 [3]."""
        room = _BENT * np.abs(self._white - self._black)
        low, high = np.minimum(self._black, self._white) - room, np.maximum(self._black, self._white) + room
        return bool(((colour >= low) & (colour <= high)).all())

    def describe_zero(self, form: _Form) -> str:
        """A zero that no pixel has, in words."""
        zero = ", ".join(f"{value:.4g}" for value in form.zero)
        return (
            f"its zero is at {zero}, where black is {self._black.min():.4g} and white {self._white.max():.4g}; "
            "check --scale, --mean and --std"
        )

    def disagreement(self, frontier: list[_Form]) -> list[str]:
        """Whether branches have different means, as a sentence."""
        first, *others = frontier
        span = np.abs(self._white - self._black)
        if all((np.abs(item.zero - first.zero) <= _BENT * span).all() for item in others):
            return []
        return ["the graph's branches normalise differently: masks hide to the mean colour of the first"]

    def _run(
        self, values: Iterable[ir.Value], probes: Sequence[NDArray[np.float32]]
    ) -> Iterator[tuple[ir.Value, list[NDArray[np.float64]]]]:
        """Floating tensors with what they are for each probe, float32 [3,H,W]."""
        values = list(dict.fromkeys(values))
        feeds = [self._fed(probe) for probe in probes]
        made = [value for value in values if value is not self._image]
        results = self._outputs(made, feeds)
        if results is None:  # one that does not run is no reason to leave the others
            singly = [self._outputs([value], feeds) for value in made]
            results = [[] if single is None else single[0] for single in singly]
        responses = {self._image: feeds, **dict(zip(made, results, strict=True))}
        for value in values:
            items = responses[value]
            if items and all(isinstance(item, np.ndarray) and item.dtype == np.float32 for item in items):
                yield value, [item.astype(np.float64) for item in items]

    def _outputs(self, values: list[ir.Value], feeds: list[NDArray[np.float32]]) -> list[list[Any]] | None:
        """What each tensor is for each of the images; None where ONNX Runtime does not run them."""
        if not values:
            return []
        part = extract(self._model, [self._image.name or ""], [value.name or "" for value in values])
        ir.external_data.load_to_model(part)
        for value in (value for node in part.graph for value in node.outputs):
            value.shape = None
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # As written: fusing would round otherwise.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = ort.InferenceSession(
                ir.to_proto(part).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            runs = [session.run(None, {self._image.name: feed}) for feed in feeds]
        except Exception:  # noqa: BLE001 - ONNX Runtime raises its own types
            return None
        return [[run[index] for run in runs] for index in range(len(values))]

    def _fed(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """An image [3,H,W] as the graph takes it."""
        laid_out = image[None] if self._layout == "nchw" else image[None].transpose(TO_NHWC)
        return np.ascontiguousarray(laid_out)

    def _form_of_colours(self, value: ir.Value, layout: _Layout, found: list[NDArray[np.float64]]) -> _Form | None:
        """From a tensor's colours, float64 [3] each, for the greys and then for red, green and blue."""
        greys, singles = found[: len(_GREYS)], found[len(_GREYS) :]
        slopes = np.stack([single - greys[0] for single in singles], axis=1)
        order = _order(np.abs(slopes), _BENT)
        if order is None:
            return None
        rise = slopes[range(3), order]
        for grey, response in zip(_GREYS, greys, strict=True):
            if (np.abs(response - greys[0] - grey * rise) > _BENT * np.abs(rise)).any():
                return None
        black, white = self._black[list(order)], self._white[list(order)]
        gain = rise / (white - black)
        offset = greys[0] - gain * black
        return _Form(value, layout, order, gain[:, None, None], offset[:, None, None])

    def _keeps_colours(self, value: ir.Value, others: frozenset[str] = frozenset()) -> bool:
        return all(
            node.op_type in _COLOUR_OPERATORS or node.op_type in others or _is_pointwise_conv(node)
            for node in _nodes_in_front(value, self._data)
        )

    def _is_quantized(self, value: ir.Value) -> bool:
        return any(node.op_type in ("QuantizeLinear", "Round", "Floor") for node in _nodes_in_front(value, self._data))

    # Where the new graph begins.

    def begin_at(self, frontier: list[_Form]) -> Taken:
        """Make the graph begin at tensors."""
        first = frontier[0]
        preprocessing = self._preprocessing(first) if not first.trivial else self._given
        base: _Order = (0, 1, 2)
        if not first.trivial and first.order == (2, 1, 0):
            base = first.order
            preprocessing = _reversed(preprocessing)
        operators = [node.op_type for form in frontier for node in _nodes_in_front(form.value, self._data)]
        image = self._new_image()
        build = _Builder(self._graph)
        taken = {form.value for form in frontier}
        laid_out: dict[_Layout, ir.Value] = {"nchw": image}
        for form in reversed(frontier):
            new = self._residual(build, image, form, preprocessing, base)
            if form.layout == "nhwc":
                if new is image and "nhwc" in laid_out:
                    new = laid_out["nhwc"]
                else:
                    turned = build.op("Transpose", [new], {"perm": TO_NHWC})
                    if new is image:
                        laid_out["nhwc"] = turned
                    new = turned
            for user, index in list(form.value.uses()):
                user.replace_input_with(index, new)
            if form.value.is_graph_output():
                form.value.replace_all_uses_with(new, replace_graph_outputs=True)
        if self._image not in taken and list(self._image.uses()):
            # Only shapes are read of what is left, if anything.
            if self._layout == "nhwc" and "nhwc" not in laid_out:
                laid_out["nhwc"] = build.op("Transpose", [image], {"perm": TO_NHWC})
            self._image.replace_all_uses_with(laid_out[self._layout])
        build.insert_in_front()
        self._graph.inputs[:] = [image]
        words = ", ".join(dict.fromkeys(operator for operator in operators if operator not in _MOVES))
        return Taken(preprocessing, "" if first.trivial else words)

    def put_inverse(self, form: _Form) -> Taken:
        """Put the inverse of a normalisation in front of the graph, which stays as it is."""
        preprocessing = self._preprocessing(form)
        mean, std = (np.asarray(getattr(preprocessing, name)) for name in ("mean", "std"))
        gain = std / np.asarray(self._given.std)
        offset = (mean - np.asarray(self._given.mean)) / np.asarray(self._given.std)
        operators = [node.op_type for node in _nodes_in_front(form.value, self._data)]
        image = self._new_image()
        build = _Builder(self._graph)
        values = build.op("Add", [build.op("Mul", [image, build.channels(gain)]), build.channels(offset)])
        if self._whole_numbers:  # float32's error would decide ties of what the graph rounds
            steps = build.op("Round", [build.op("Mul", [values, build.constant(np.float32(_STEPS))])])
            values = build.op("Mul", [steps, build.constant(np.float32(1 / _STEPS))])
        if self._layout == "nhwc":
            values = build.op("Transpose", [values], {"perm": TO_NHWC})
        self._image.replace_all_uses_with(values)
        build.insert_in_front()
        self._graph.inputs[:] = [image]
        words = ", ".join(dict.fromkeys(operator for operator in operators if operator not in _MOVES))
        return Taken(preprocessing, words, dropped=False)

    def _new_image(self) -> ir.Value:
        image = ir.Value(
            name="image",
            shape=ir.Shape(("N", 3, self._given.height, self._given.width)),
            type=ir.TensorType(ir.DataType.FLOAT),
        )
        self._image.name = f"{self._image.name}_file"
        return image

    def _preprocessing(self, form: _Form) -> Preprocessing:
        """The preprocessing to a tensor, up to the sign and the order of its channels."""
        given_mean, given_std = np.asarray(self._given.mean), np.asarray(self._given.std)
        mean = given_mean + given_std * form.zero
        std = given_std / form.mean_gain
        return dataclasses.replace(
            self._given,
            mean=_triple(_shortened(float(value), _SHORT * self._given.scale) for value in mean),
            std=_triple(_shortened(float(value), _SHORT * float(value)) for value in std),
        )

    def _residual(
        self, build: "_Builder", image: ir.Value, form: _Form, preprocessing: Preprocessing, base: _Order
    ) -> ir.Value:
        """A tensor, NCHW, made of the new image: the channels in its order, and what is left of its gain and offset."""
        mean, std = (
            _unordered(np.asarray(getattr(preprocessing, name)), base)[list(form.order)] for name in ("mean", "std")
        )
        given_mean, given_std = (np.asarray(getattr(self._given, name))[list(form.order)] for name in ("mean", "std"))
        gain = form.gain * (std / given_std)[:, None, None]
        offset = form.gain * ((mean - given_mean) / given_std)[:, None, None] + form.offset
        new = image
        indices = [base.index(channel) for channel in form.order]
        if indices != [0, 1, 2]:
            new = build.op("Gather", [new, build.constant(np.array(indices, np.int64))], {"axis": 1})
        if np.abs(gain - 1).max() > _EXACT:
            new = build.op("Mul", [new, build.channels(gain)])
        reach = np.abs(form.gain).max() * max(np.abs(self._white).max(), np.abs(self._black).max())
        if np.abs(offset).max() > _EXACT * max(reach, float(np.abs(form.offset).max())):
            new = build.op("Add", [new, build.channels(offset)])
        return new


class _Builder:
    """Makes nodes to be put in front of a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._nodes: list[ir.Node] = []

    def op(self, op_type: str, inputs: Sequence[ir.Value], attributes: dict[str, Any] | None = None) -> ir.Value:
        """Add a node; returns its output."""
        name = f"ortcam/front_{op_type.lower()}_{len(self._nodes)}"
        node = ir.node(op_type, list(inputs), attributes, name=name)
        node.outputs[0].name = name
        node.outputs[0].dtype = ir.DataType.FLOAT
        self._nodes.append(node)
        return node.outputs[0]

    def constant(self, numbers: NDArray[Any] | np.generic) -> ir.Value:
        """Add an initializer."""
        return add_constant(self._graph, numbers, "ortcam/front_constant")

    def channels(self, values: NDArray[np.float64]) -> ir.Value:
        """Add a constant [1,3,1,1] of one value per channel [3], or of [3,H,W], smaller where all pixels agree."""
        values = values.reshape(3, 1, 1) if values.ndim == 1 else values
        if values.shape[1:] != (1, 1) and np.ptp(values, axis=(1, 2)).max() <= _EXACT * np.abs(values).max():
            values = values.mean(axis=(1, 2), keepdims=True)
        return self.constant(values[None].astype(np.float32))

    def insert_in_front(self) -> None:
        """Put the nodes in front of all others."""
        first = next(iter(self._graph), None)
        if first is None:
            self._graph.extend(self._nodes)
        else:
            self._graph.insert_before(first, self._nodes)


def _pixel_form(
    value: ir.Value, layout: _Layout, slopes: NDArray[np.float64], zero: NDArray[np.float64]
) -> _Form | None:
    """From slopes [3 of the tensor, 3 of the image, H, W] and the response [3,H,W] to zeros."""
    order = _order(np.abs(slopes).max(axis=(2, 3)), _EXACT)
    if order is None:
        return None
    gain = slopes[range(3), order]
    if np.abs(gain).min() <= _EXACT * np.abs(gain).max():
        return None
    constant = (gain.mean(axis=(1, 2), keepdims=True), zero.mean(axis=(1, 2), keepdims=True))
    if np.ptp(gain, axis=(1, 2)).max() <= _EXACT * np.abs(gain).max():
        gain = np.broadcast_to(constant[0], gain.shape)
    if np.ptp(zero, axis=(1, 2)).max() <= _EXACT * np.abs(zero).max():
        zero = np.broadcast_to(constant[1], zero.shape)
    return _Form(value, layout, order, gain, zero)


def _follows(form: _Form, image: NDArray[np.float32], response: NDArray[np.float64]) -> bool:
    """Whether a tensor is what its form says, for another image."""
    expected = form.gain * image[list(form.order)].astype(np.float64) + form.offset
    largest = max(float(np.abs(form.gain).max() * np.abs(image).max()), float(np.abs(form.offset).max()))
    return bool(np.abs(response - expected).max() <= _EXACT * largest)


def _order(weights: NDArray[np.float64], tolerance: float) -> _Order | None:
    """Which one channel of the image each channel depends on, by |slopes| [3,3]; None where it is not one each."""
    if not np.isfinite(weights).all():
        return None
    first, second, third = (int(index) for index in weights.argmax(axis=1))
    order = first, second, third
    rest = weights.copy()
    rest[range(3), order] = 0
    if sorted(order) != [0, 1, 2] or (rest > tolerance * weights.max()).any() or not weights[range(3), order].all():
        return None
    return order


def _as_channels(
    responses: list[NDArray[np.float64]], size: tuple[int, int] | None
) -> tuple[_Layout, list[NDArray[np.float64]]] | None:
    """Responses as [3,H,W], with the layout they have; None for other shapes, or another size than this."""
    shape = responses[0].shape
    if len(shape) != 4 or shape[0] != 1:
        return None
    if shape[1] == 3 and size in (None, shape[2:]):
        return "nchw", [response[0] for response in responses]
    if shape[3] == 3 and size in (None, shape[1:3]):
        return "nhwc", [response[0].transpose(2, 0, 1) for response in responses]
    return None


def _until_first_layer(image: ir.Value, data: list[ir.Node]) -> Iterator[ir.Value]:
    """The image, and the tensors behind it that all data pass, up to the first layer that makes features of it."""
    yield image
    last_use: dict[ir.Value, int] = {}
    for index, node in enumerate(data):
        for value in inputs_of(node):
            last_use[value] = index
    alive = {image}
    for index, node in enumerate(data):
        if _makes_features(node):
            return
        alive.update(value for value in node.outputs if value in last_use)
        alive = {value for value in alive if last_use.get(value, -1) > index}
        if len(alive) == 1 and (only := next(iter(alive))).producer() is node:
            yield only


def _makes_features(node: ir.Node) -> bool:
    """Whether a node is a layer that makes more than three channels of its image."""
    if node.op_type not in _LAYERS:
        return False
    weights = node.inputs[3 if node.op_type == "QLinearConv" else 1]
    if weights is None or weights.shape is None:
        return True
    # Of a convolution the outputs come first; a matrix may stand on either side, and be transposed.
    channels = weights.shape[:1] if "Conv" in node.op_type else (weights.shape[0], weights.shape[-1])
    return not any(isinstance(count, int) and count <= 3 for count in channels)


def _is_pointwise_conv(node: ir.Node) -> bool:
    weights = node.inputs[1] if node.op_type == "Conv" else None
    return weights is not None and weights.shape is not None and list(weights.shape)[2:] == [1, 1]


def _chain(node: ir.Node, data: list[ir.Node]) -> Iterator[ir.Value]:
    """The tensors of a branch, from its first node to where it forks or makes features."""
    known = set(data)
    current: ir.Node | None = node
    while current is not None and not _makes_features(current) and len(current.outputs) == 1:
        value = current.outputs[0]
        yield value
        users = {user for user, _ in value.uses() if user in known}
        current = users.pop() if len(users) == 1 else None


def _nodes_in_front(value: ir.Value, data: list[ir.Node]) -> list[ir.Node]:
    """The data nodes that a tensor is made by, in order."""
    needed = {value}
    found = []
    for node in reversed(data):
        if any(output in needed for output in node.outputs):
            found.append(node)
            needed.update(inputs_of(node))
    return found[::-1]


def _is_scale_mistaken(form: _Form, given: Preprocessing) -> bool:
    """Whether a normalisation is one of bytes, and the preprocessing of [0,1], or the other way round."""
    white = np.abs(given.values()).max()
    return bool(np.abs(form.zero).max() > 8 * white or np.abs(form.mean_gain).max() * white < 0.05)


def _reversed(preprocessing: Preprocessing) -> Preprocessing:
    """The same colours with the channels in the other order."""
    order: Literal["rgb", "bgr"] = "bgr" if preprocessing.channel_order == "rgb" else "rgb"
    assert PLANES[order] == PLANES[preprocessing.channel_order][::-1]
    return dataclasses.replace(
        preprocessing,
        mean=_triple(reversed(preprocessing.mean)),
        std=_triple(reversed(preprocessing.std)),
        channel_order=order,
    )


def _unordered(values: NDArray[np.float64], order: _Order) -> NDArray[np.float64]:
    """Values of a tensor's channels as those of the image's."""
    result = np.empty(3)
    result[list(order)] = values
    return result


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _shortened(value: float, tolerance: float) -> float:
    """The number with the fewest digits within a tolerance: what was written before float32 arithmetic rounded it."""
    for digits in range(1, 16):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= tolerance:
            return short
    return value
