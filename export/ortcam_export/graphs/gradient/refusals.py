"""Why a graph has no derivative: the error names the operator that stops it."""

import onnx_ir as ir

from ortcam_export.errors import ExportError

__all__ = ["NoDerivativeError"]


class NoDerivativeError(ExportError):
    """A graph, or a part of it, that cannot be differentiated.

    Attributes:
        reason: why, as a part of a sentence: "its operator ArgMax (node 'top') has no derivative".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the model has no gradient graph: {reason}")
        self.reason = reason

    @classmethod
    def at(cls, node: ir.Node, why: str = "has no derivative") -> "NoDerivativeError":
        """The error for one node, with what stops there."""
        domain = f"{node.domain}." if node.domain else ""
        return cls(f"its operator {domain}{node.op_type} (node {node.name!r}) {why}")
