"""The fused file: how its weights are stored, its metadata, and what users are told of it."""

import dataclasses
from pathlib import Path
from typing import Final

import onnx_ir as ir
import onnxruntime

from ortcam._version import __version__
from ortcam.bundle import Bundle
from ortcam.images.preprocessing import Preprocessing
from ortcam.request import ExplainRequest
from ortcam.support.strict_json import encode_json
from ortcam_export.errors import ExportError
from ortcam_export.fused.explainer_graph import ExplainerSpec, Masking, explained_layers, finest
from ortcam_export.fused.placement import EXTERNAL_SUFFIX, Place
from ortcam_export.fused.sharing import share_in_file, share_in_function, share_in_outer_graph
from ortcam_export.graphs.weights import WeightsFile, weight_key
from ortcam_export.ort_format import describe_ort

__all__ = ["Fused", "client_parameters", "describe", "metadata", "save"]

_LARGEST: Final = (1 << 31) - (1 << 20)  # bytes of one protobuf message, less some for the nodes


@dataclasses.dataclass(frozen=True)
class Fused:
    """A file that explains.

    Attributes:
        path: of the model.
        external: of the weights beside it, or None.
        size: bytes of both.
        onnx_size: bytes of the same model in ONNX's format, where the file is in ORT format; else None.
        ort_format: version of ORT format, where the file is in it; else None.
        opset: version of the operator set.
        nodes: their number, those inside the loops included.
        inputs: name -> type and shape, in words.
        outputs: name -> type and shape, in words.
        difference: the largest of its maps from the runtime's, on the bundle's probe; None where it was not measured.
        metadata: what the file says of itself.
    """

    path: Path
    external: Path | None
    size: int
    onnx_size: int | None
    ort_format: int | None
    opset: int
    nodes: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    difference: float | None
    metadata: dict[str, str]


def metadata(bundle: Bundle, request: ExplainRequest, spec: ExplainerSpec) -> dict[str, str]:
    """The file's metadata: texts as they are, everything else as JSON."""
    manifest, settings = bundle.manifest, request.settings
    masking = spec.how if isinstance(spec.how, Masking) else None
    cuts = explained_layers(manifest, spec.how).values()
    several = bool(manifest.output_parts)
    values: dict[str, object] = {
        "method": settings.method.name,
        "options": settings.options,
        "chosen": request.chosen or "",
        "budget": masking and masking.budget,
        "precision": masking.precision if masking else manifest.precision,
        "batch_size": masking and masking.batch_size,
        "targets": "score" if spec.score is not None else "input" if spec.top_k is None else spec.top_k,
        "score": request.score.text if request.score is not None else "",
        "input": _input_in_words(manifest.preprocessing, spec),
        "labels": manifest.labels,
        "output_shape": manifest.output_shape,
        **({"output_parts": [dataclasses.asdict(part) for part in manifest.output_parts]} if several else {}),
        "activation": manifest.activation,
        "preprocessing": dataclasses.asdict(manifest.preprocessing),
        "model": dataclasses.asdict(manifest.model),
        "cut": dataclasses.asdict(finest(cuts)),
        "layers": [cut.module or cut.tensor for cut in cuts],
        "bundle_sha256": bundle.sha256,
        "versions": {"ortcam": __version__, "onnx-ir": ir.__version__, "onnxruntime": onnxruntime.__version__},
    }
    return {
        f"ortcam.{key}": value if isinstance(value, str) else encode_json(value, indent=None)
        for key, value in values.items()
    }


def _input_in_words(preprocessing: Preprocessing, spec: ExplainerSpec) -> str:
    channels = preprocessing.channels
    if not spec.uint8_input:
        return f"float32 [1,{channels},H,W], preprocessed"
    return f"float32 samples [h,w,{channels}]" if preprocessing.needs_samples else "uint8 RGB [h,w,3]"


def save(model: ir.Model, path: Path, *, external: bool, functions: bool = True) -> None:
    """Write a model with its weights, each once: inside the file, or in a file beside it.

    Args:
        model: its weights are rearranged.
        path: of the file.
        external: whether the weights are in a file beside it.
        functions: whether weights inside the file that a loop needs, too, are in a function.

    Raises:
        ExportError: more weights than one file can hold.
    """
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    weights = sum({weight_key(tensor): tensor.nbytes for tensor in tensors if tensor is not None}.values())
    if not external and weights > _LARGEST:
        raise ExportError(
            f"the weights are {weights / 1e9:.1f} GB, and an ONNX file holds 2 GB; --external puts them beside it"
        )
    if external:
        share_in_file(model, WeightsFile(path.parent, path.name + EXTERNAL_SUFFIX))
    else:
        (share_in_function if functions else share_in_outer_graph)(model)
        ir.external_data.load_to_model(model)
    ir.save(model, path)


def client_parameters(model: ir.Model) -> dict[str, str]:
    """What a client of a server wants to know."""
    return {key: model.metadata_props[f"ortcam.{key}"] for key in ("method", "options", "score", "input", "labels")}


def describe(
    model: ir.Model, place: Place, weights: Path | None, difference: float | None, onnx_size: int | None
) -> Fused:
    """Describe a file that is in its place."""
    graph = model.graph
    ort_file = None if onnx_size is None else describe_ort(place.model)
    return Fused(
        path=place.model,
        external=weights,
        size=sum(path.stat().st_size for path in (place.model, weights) if path is not None),
        onnx_size=onnx_size,
        ort_format=None if ort_file is None else ort_file.version,
        opset=graph.opset_imports[""],
        nodes=ort_file.nodes if ort_file else sum(1 for _ in ir.traversal.RecursiveGraphIterator(graph)),
        inputs={str(value.name): _in_words(value) for value in graph.inputs},
        outputs={str(value.name): _in_words(value) for value in graph.outputs},
        difference=difference,
        metadata=dict(model.metadata_props),
    )


def _in_words(value: ir.Value) -> str:
    assert value.dtype is not None
    assert value.shape is not None
    name = {"FLOAT": "float32"}.get(value.dtype.name, value.dtype.name.lower())
    return f"{name} [{','.join(str(size) for size in value.shape)}]"
