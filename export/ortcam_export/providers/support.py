"""A provider and the graphs of a bundle: which nodes it would take, which not and why, in how many partitions."""

import dataclasses
from collections import Counter
from typing import Any

import onnx
import onnx_ir as ir

from ortcam.bundle import Bundle
from ortcam_export.graphs.batch_axis.fixing import open_dimensions
from ortcam_export.providers.conditions import refusal
from ortcam_export.providers.documented import documented
from ortcam_export.providers.partitions import count_partitions

__all__ = ["GraphSupport", "ProviderSupport", "inspect_provider"]


@dataclasses.dataclass(frozen=True)
class GraphSupport:
    """What a provider would take of a graph.

    Attributes:
        graph: its file name.
        nodes: of the graph.
        taken: of them, how many the provider would take.
        partitions: pieces that it runs in one go.
        refused: (operator, why) -> how many nodes, the most frequent first.
        open_dimensions: how many tensors have a dimension that is not fixed.
    """

    graph: str
    nodes: int
    taken: int
    partitions: int
    refused: dict[tuple[str, str], int]
    open_dimensions: int


@dataclasses.dataclass(frozen=True)
class ProviderSupport:
    """What a provider would take of a bundle.

    Attributes:
        provider: as ONNX Runtime spells it.
        source: the list of its operators.
        static: whether it refuses dynamic shapes.
        graphs: of the bundle.
        conditions: operators in the graphs with a documented condition, in the words of the document. Those on rank,
            type and constant inputs were checked.
    """

    provider: str
    source: str
    static: bool
    graphs: tuple[GraphSupport, ...]
    conditions: dict[str, str]

    def summary(self) -> dict[str, Any]:
        """What `ortcam inspect BUNDLE --provider NAME --json` prints."""
        graphs = [
            {
                **{name: getattr(graph, name) for name in ("graph", "nodes", "taken", "partitions", "open_dimensions")},
                "refused": [
                    {"operator": operator, "reason": reason, "nodes": count}
                    for (operator, reason), count in graph.refused.items()
                ],
            }
            for graph in self.graphs
        ]
        return {"provider": self.provider, "source": self.source, "graphs": graphs, "conditions": self.conditions}


def inspect_provider(bundle: Bundle, provider: str) -> ProviderSupport:
    """Say which nodes of a bundle's graphs an execution provider would take, by its documents.

    No provider is started, and none has to be installed. What a driver or a chip refuses beyond the documents is not
    known here.

    Args:
        bundle: that was read.
        provider: "qnn", "nnapi", "coreml" or "xnnpack", or as ONNX Runtime spells it.

    Raises:
        OptionError: no list of the provider's operators is known.
        ExportError: this ONNX Runtime lacks the list.

    Example:
        ```python
        support = ortcam_export.inspect_provider(ortcam.bundle.read_bundle("resnet18.ortcam"), "qnn")
        ```
    """
    known = documented(provider)
    graphs = []
    conditions: dict[str, str] = {}
    for name in _graphs_of(bundle):
        model = _with_shapes(bundle, name)
        dynamic = set(open_dimensions(model))
        reasons = {node: refusal(node, known, known.operators, dynamic) for node in model.graph}
        taken = [node for node, reason in reasons.items() if reason is None]
        refused = Counter((_name(node), reason) for node, reason in reasons.items() if reason is not None)
        graphs.append(
            GraphSupport(
                name,
                len(reasons),
                len(taken),
                count_partitions(model.graph, taken),
                dict(refused.most_common()),
                len(dynamic),
            )
        )
        conditions |= {_name(node): text for node in taken if (text := known.operators[_name(node)])}
    return ProviderSupport(known.name, known.source, known.static, tuple(graphs), dict(sorted(conditions.items())))


def _graphs_of(bundle: Bundle) -> list[str]:
    graphs, gradient = bundle.manifest.graphs, bundle.manifest.gradient
    names = [graphs.features, graphs.head, graphs.classifier, None if gradient is None else gradient.graph]
    names += graphs.scorers.values()
    names += [name for variant in bundle.manifest.variants.values() for name in variant.scorers.values()]
    return [*dict.fromkeys(name for name in names if name is not None)]


def _with_shapes(bundle: Bundle, name: str) -> ir.Model:
    """A graph with the shapes that follow from its inputs."""
    proto = onnx.load(bundle.file(name), load_external_data=False)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def _name(node: ir.Node) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"
