"""A layer: a tensor a classifier can be cut at, and the cut itself."""

import dataclasses

import onnx_ir as ir

from ortcam.bundle import Cut
from ortcam_export.graphs.layers.operators import scale_of
from ortcam_export.graphs.surgery import insert_dequantization, insert_order, insert_transposition

__all__ = ["Layer", "cut_open"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A tensor the classifier can be cut at.

    Attributes:
        cut: its name, module and shape.
        modules: all module paths whose output it is, outermost first.
        operator: ONNX operator that makes it.
        weighted_behind: whether a layer with weights lies behind it.
        macs_behind: multiply-adds of the part behind it, for one image; None inside a branch and where not known.
        quantized: whether it holds 8-bit integers, which are made floating at the cut.
        perm: of its axes, where it is laid out anew at the cut: tokens [T,N,C] as [N,T,C], say; None where it is not.
        order: of its tokens, where they are brought in order at the cut; None where they are in order.
        inside_branch: whether data reach the logits around it, so that no head of these features alone exists.
    """

    cut: Cut
    modules: tuple[str, ...]
    operator: str
    weighted_behind: bool
    macs_behind: int | None
    quantized: bool = False
    perm: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    inside_branch: bool = False


def cut_open(model: ir.Model, layer: Layer) -> tuple[ir.Model, Cut]:
    """Give a model a floating tensor [N,...] at a layer. Returns the model, and that tensor as the cut.

    A layer that has one already is returned as it is. Integers q become Q(DQ(q)), which is q again. What is laid out
    anew, or brought in order, is brought back behind the cut. The cut lies between the two.
    """
    if not layer.quantized and layer.perm is None and layer.order is None:
        return model, layer.cut
    model = model.clone()
    value = next(value for node in model.graph for value in node.outputs if value.name == layer.cut.tensor)
    if layer.quantized:
        scale = scale_of(value)
        assert scale is not None
        value = insert_dequantization(model.graph, value, *scale)
    if layer.perm is not None:
        value = insert_transposition(model.graph, value, layer.perm)
    if layer.order is not None:
        value = insert_order(model.graph, value, layer.order)
    return model, dataclasses.replace(layer.cut, tensor=value.name or "")
