"""The table of rules: operator -> how the adjoints of its inputs follow from that of its output."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import onnx_ir as ir

from ortcam_export.graphs.gradient.backward import Backward

__all__ = ["CONTRIB", "Rule", "is_thin", "rule", "rule_of"]

CONTRIB: Final = "com.microsoft"


class Rule(Protocol):
    """Builds the adjoints of a node's inputs, in their order; None where there is none.

    Args:
        b: the backward pass.
        node: of the forward pass.
        g: the adjoint of its first output; of one with several outputs, `b.adjoints` has the others.
    """

    def __call__(self, b: Backward, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
        """Build them."""
        ...


_RULES: dict[tuple[str, str], Rule] = {}
_THIN: set[tuple[str, str]] = set()
# Operators that ONNX Runtime writes or reads in ONNX's own domain, or in its own with the same meaning.
_DOMAINS: Final = ("", "ai.onnx", CONTRIB)


def rule(*op_types: str, thin: bool = False) -> Callable[[Rule], Rule]:
    """Enter a rule for operators.

    Args:
        op_types: their names.
        thin: whether it takes an adjoint that only broadcasts to the output's shape.
    """

    def enter(function: Rule) -> Rule:
        for op_type in op_types:
            _RULES["", op_type] = function
            if thin:
                _THIN.add(("", op_type))
        return function

    return enter


def rule_of(node: ir.Node) -> Rule | None:
    """The rule for a node, or None."""
    return _RULES.get(("", node.op_type)) if node.domain in _DOMAINS else None


def is_thin(node: ir.Node) -> bool:
    """Whether the rule for a node takes adjoints that only broadcast to the output's shape."""
    return ("", node.op_type) in _THIN
