"""Finds the attention behind a token layer, and what each token gives to the logits through it.

Behind a token layer, attention mixes the values v_t of the tokens: o_q = sum_t a_qt v_t, per head. What token t gives
to the logits is the derivative with respect to a factor on its value,

    r_ht = <v_ht, dy/dv_ht> = sum_q a_hqt dy/da_hqt,

since dy/dv_ht = sum_q a_hqt dy/do_hq and dy/da_hqt = <v_ht, dy/do_hq>. So value times its gradient and attention times
its gradient (Chefer et al., ICCV 2021, without their ReLU on each element) are the same sum.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import Cut
from ortcam_export.errors import ExportError
from ortcam_export.graphs.builder import Builder
from ortcam_export.graphs.gradient import differentiate
from ortcam_export.graphs.names import rename, taken_names
from ortcam_export.graphs.surgery import extract

__all__ = ["OUTPUT", "TokenAttention", "add_relevance", "differentiate_with_attention", "find_attention"]

# The output of the gradient graph, float32 [K,heads,T].
OUTPUT: Final = "attention_relevance"

Array = NDArray[np.float32]
Feeds = Mapping[str, Array]
# A part of the model, and its inputs by name -> its outputs.
Runner = Callable[[ir.Model, dict[str, Array]], list[Array]]

# Operators that pass attention on as it is, at inference.
_PASSIVE: Final = ("Cast", "Dropout", "Identity")
# Tensors of the same numbers differ by less, relative to the largest; float32 and another order of sums give 1e-6.
_SAME: Final = 1e-5
# Tokens that are changed one by one to see where each goes.
_TRIED: Final = 8


@dataclasses.dataclass(frozen=True)
class TokenAttention:
    """An attention over the tokens of a layer.

    Attributes:
        value: name of the tensor of values, float32 [N,heads,T,d], [N * heads,T,d] or [N,T,heads * d].
        mixed: name of the tensor that the attention makes of them.
        heads: of the values.
        tokens: T, prefix tokens included.
        layout: which dimension is which: "heads first", "heads in the batch", or "heads last".
        width: d, values per head.
    """

    value: str
    mixed: str
    heads: int
    tokens: int
    layout: str
    width: int

    def times(self, values: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply the values of one image by factors [B,heads,T]: those of B images, laid out as they were."""
        shape = (len(factors), self.heads, self.tokens, self.width)
        if self.layout == "heads last":
            apart = values.reshape(1, self.tokens, self.heads, self.width).transpose(0, 2, 1, 3)
            product = (apart * factors[..., None]).transpose(0, 2, 1, 3)
            return product.reshape(len(factors), self.tokens, -1)
        product = values.reshape(1, *shape[1:]) * factors[..., None]
        return product.reshape(-1, *shape[2:]) if self.layout == "heads in the batch" else product


def find_attention(model: ir.Model, tensor: str, cut: Cut, feeds: Feeds, run: Runner) -> TokenAttention | None:
    """Find the attention behind a token layer that all patches have to pass.

    Two things are checked by running parts of the model: each value belongs to the one token at its place, and the
    patches reach the logits through this attention alone. Where a head has several blocks, or pools the patches, that
    is not so.

    Args:
        model: with the logits.
        tensor: the layer's name in it.
        cut: the layer; only tokens have attention.
        feeds: float32 [1,...] of a real image: the layer [1,T,C], and the image where it is an input of the model.
        run: computes a part of the model.

    Returns:
        The attention; None if there is none of this kind.
    """
    if cut.layout != "tokens":
        return None
    for found in _candidates(model.graph, cut):
        trial = _Trial(model, tensor, cut, found, feeds, run)
        try:
            if trial.keeps_places() and trial.is_only_way():
                return found
        except (ExportError, ValueError):  # the part needs more than these inputs, or does not run
            continue
    return None


def _candidates(graph: ir.Graph, cut: Cut) -> Iterator[TokenAttention]:
    """What looks like an attention over the tokens of a layer, in the order of the graph: softmax times values."""
    tokens = cut.shape[0]
    for node in graph:
        if node.op_type == "MatMul" and _is_softmax(node.inputs[0]):
            value, mixed = node.inputs[1], node.outputs[0]
        elif node.op_type == "Attention" and node.domain == "" and len(node.inputs) > 2:
            value, mixed = node.inputs[2], node.outputs[0]
        else:
            continue
        sides = None if value is None or value.shape is None else [*value.shape]
        if value is None or sides is None or value.is_initializer():
            continue
        match sides:
            case [_, int(heads), side, int(width)] if side == tokens:
                layout = "heads first"
            case [several, side, int(width)] if side == tokens and node.op_type == "MatMul":
                heads, layout = _heads_in_batch(several), "heads in the batch"
            case [_, side, int(width)] if side == tokens and (heads := node.attributes.get_int("kv_num_heads", 0)):
                width, layout = width // heads, "heads last"
            case _:
                continue
        if heads > 0 and value.name is not None and mixed.name is not None:
            yield TokenAttention(value.name, mixed.name, heads, tokens, layout, width)


def _is_softmax(value: ir.Value | None) -> bool:
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "Softmax":
            return node.attributes.get_int("axis", -1) in (-1, len(value.shape or ()) - 1)
        value = node.inputs[0] if node.op_type in _PASSIVE else None
    return False


def _heads_in_batch(side: int | ir.SymbolicDim) -> int:
    """Heads in a dimension that is traced as heads * N."""
    text = str(side)
    if text == "N":
        return 1
    return int(text.removesuffix("*N")) if text.endswith("*N") and text.removesuffix("*N").isdecimal() else 0


@dataclasses.dataclass(frozen=True)
class _Trial:
    """What `find_attention` tries with a candidate."""

    model: ir.Model
    tensor: str
    cut: Cut
    found: TokenAttention
    feeds: Feeds
    run: Runner

    def keeps_places(self) -> bool:
        """Whether the value at each place is made of the token at that place alone."""
        clean = self._computed(self.found.value, {})
        scale = _SAME * float(np.abs(clean).max())
        places = 1 if self.found.layout == "heads last" else clean.ndim - 2
        others = tuple(axis for axis in range(clean.ndim) if axis != places)
        for token in np.unique(np.linspace(0, self.found.tokens - 1, _TRIED).astype(int)):
            values = self._computed(self.found.value, {self.tensor: self._changed(slice(token, token + 1))})
            if np.flatnonzero(np.abs(values - clean).max(axis=others) > scale).tolist() != [token]:
                return False
        return True

    def is_only_way(self) -> bool:
        """Whether the logits stay when the patches change and what the attention makes of them does not."""
        mixed = {self.found.mixed: self._computed(self.found.mixed, {})}
        clean = self._computed("logits", mixed)
        logits = self._computed("logits", {**mixed, self.tensor: self._changed(slice(self.cut.prefix_tokens, None))})
        return bool(np.abs(logits - clean).max() <= _SAME * np.abs(clean).max())

    def _computed(self, output: str, feeds: Feeds) -> Array:
        """A tensor of the model, from the inputs of an image with these changes."""
        given = {**self.feeds, **feeds}
        (found,) = self.run(extract(self.model, [*given], [output]), given)
        return found

    def _changed(self, tokens: slice) -> Array:
        """The layer with noise on some tokens."""
        features = self.feeds[self.tensor]
        noise = np.zeros_like(features)
        noise[:, tokens] = np.random.default_rng(0).standard_normal(noise[:, tokens].shape)
        changed: Array = features + noise * features.std()
        return changed


def differentiate_with_attention(model: ir.Model, wrt: Sequence[str], found: TokenAttention | None) -> ir.Model:
    """Build the gradient graph of the logits, with the output `attention_relevance` where there is attention.

    Args:
        model: image -> logits; left as it is.
        wrt: the layers, the primary one first.
        found: the attention behind the primary layer.

    Raises:
        NoDerivativeError: an operator has no derivative.
    """
    if found is None:
        return differentiate(model, output="logits", wrt=wrt)
    slope, value = f"{OUTPUT}_slope", f"{OUTPUT}_value"
    graph = differentiate(model, output="logits", wrt=wrt, also={found.value: slope}, forward={found.value: value})
    add_relevance(graph, found, value, slope)
    return graph


def add_relevance(gradient: ir.Model, found: TokenAttention, value: str, slope: str) -> None:
    """Put the output `attention_relevance` in the place of two outputs of a gradient graph.

    Args:
        gradient: the graph; changed in place.
        found: the attention.
        value: the output that has the values, as `found` lays them out, of N images.
        slope: the output that has their gradient, of K seeds.
    """
    graph = gradient.graph
    outputs = {output.name: output for output in graph.outputs}
    nodes = {(node.name or "").removeprefix("ortcam/") for node in graph}  # outputs may have been renamed since
    build = Builder({*taken_names(graph), *nodes, *(item.name for item in graph.inputs)})
    heads, tokens = found.heads, found.tokens
    product = [outputs[value], outputs[slope]]
    if found.layout == "heads in the batch":  # N = 1 has to broadcast against K
        product = [build.reshape(item, -1, heads, tokens, found.width) for item in product]
    elif found.layout == "heads last":
        product = [build.reshape(item, -1, tokens, heads, found.width) for item in product]
    last = build.integers(-1)
    total = build.op("ReduceSum", [build.op("Mul", product), last], {"keepdims": 0})
    if found.layout == "heads last":
        total = build.op("Transpose", [total], {"perm": [0, 2, 1]})
    graph.extend(build.take_nodes())
    for constant in build.initializers:
        graph.register_initializer(constant)
    rename(total, OUTPUT, graph)
    total.type, total.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["K", heads, tokens])
    graph.outputs[:] = [*(output for output in graph.outputs if output.name not in (value, slope)), total]
