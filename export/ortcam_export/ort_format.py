"""ORT format, which minimal builds of ONNX Runtime load, and the operators that such a build needs."""

import dataclasses
import importlib
import logging
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import onnxruntime as ort

from ortcam._version import __version__
from ortcam.bundle import Bundle, read_bundle
from ortcam.errors import OptionError
from ortcam_export.errors import ExportError, first_line
from ortcam_export.staging import temporary

__all__ = ["SUFFIX", "OrtFile", "describe_ort", "required_operators", "save_in_ort_format"]

SUFFIX: Final = ".ort"
# Lays tensors out for the processor that converts. The file would not run on ARM.
_OF_THIS_PROCESSOR: Final = "NchwcTransformer"


@dataclasses.dataclass(frozen=True)
class OrtFile:
    """What a file in ORT format says of itself.

    Attributes:
        version: of the format. ONNX Runtime 1.16 and later reads 6, which is the one since then.
        opset: version of ONNX's own operator set.
        nodes: their number, those inside the loops included.
    """

    version: int
    opset: int
    nodes: int


class _Level(NamedTuple):
    """How far a graph is optimized before its operators are counted."""

    level: ort.GraphOptimizationLevel
    portable: bool


_SAVED: Final = _Level(ort.GraphOptimizationLevel.ORT_ENABLE_ALL, portable=True)
# Of an ONNX file, which every device optimizes when it loads it: as it is, and as it becomes.
_LOADED: Final = (
    _Level(ort.GraphOptimizationLevel.ORT_DISABLE_ALL, portable=True),
    _Level(ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, portable=True),
    _SAVED,
    _Level(ort.GraphOptimizationLevel.ORT_ENABLE_ALL, portable=False),
)


def save_in_ort_format(source: Path, target: Path) -> None:
    """Convert an ONNX file to ORT format, optimized for any processor, as ONNX Runtime's own converter does.

    Raises:
        ExportError: ONNX Runtime cannot convert it, as where it has 2 GB of weights or more.
    """
    _save(source, target, _SAVED)


def _save(source: Path, target: Path, how: _Level) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # not that levels above "extended" belong to one machine: what does is left out
    options.graph_optimization_level = how.level
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    disabled = [_OF_THIS_PROCESSOR] if how.portable else []
    try:
        ort.InferenceSession(source, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
    except Exception as error:  # ONNX Runtime raises its own types
        raise ExportError(
            f"ONNX Runtime cannot write {source.name} in ORT format: {first_line(error)}. Nothing was written"
        ) from error


def describe_ort(path: Path) -> OrtFile:
    """Read what a file in ORT format says of itself."""
    _tools()  # which makes the next one importable
    sessions = importlib.import_module("ort_flatbuffers_py.fbs.InferenceSession")
    session = sessions.InferenceSession.GetRootAs(bytearray(path.read_bytes()), 0)
    model = session.Model()
    sets = {
        (found.Domain() or b"").decode(): found.Version()
        for found in (model.OpsetImport(place) for place in range(model.OpsetImportLength()))
    }
    return OrtFile(int(session.OrtVersion()), sets[""], sum(1 for _ in _nodes(model.Graph())))


def _nodes(graph: Any) -> Iterator[Any]:
    for place in range(graph.NodesLength()):
        node = graph.Nodes(place)
        yield node
        for number in range(node.AttributesLength()):
            if (inner := node.Attributes(number).G()) is not None:
                yield from _nodes(inner)


def required_operators(*models: str | os.PathLike[str] | Bundle, types: bool = False) -> str:
    """List the operators that one build of ONNX Runtime needs for fused files and bundles.

    The text is what ONNX Runtime's `build.py` takes with `--include_ops_by_config`: lines
    `domain;version of the operator set;operators`. A file in ORT format runs as it is: the list has the operators in
    it. An ONNX file, and so a bundle, is optimized when it is loaded: the list has its own operators, and those that
    ONNX Runtime puts in their place at each level on this machine's processor.

    ```python
    Path("operators.config").write_text(ortcam_export.required_operators("quick.ort", "exact.ort", types=True))
    ```

    Args:
        models: folders that `ortcam export` wrote, and files that `ortcam fuse` wrote, `.onnx` or `.ort`.
        types: whether each operator has its types, for a build with `--enable_reduced_operator_type_support`.

    Raises:
        OptionError: one is neither, or there is none.
        BundleError: a bundle cannot be trusted or read.
        ExportError: ONNX Runtime cannot read or convert a graph.
    """
    if not models:
        raise OptionError("required_operators: accepted is one model or more")
    tools = _tools()
    graphs = [_graphs(model) for model in models]
    found: dict[str, dict[int, set[str]]] = {}
    usage = tools.OperatorTypeUsageManager() if types else None
    with temporary() as folder:
        for file in (file for _, files in graphs for file in files):
            for path in _as_loaded(file, folder):
                try:
                    tools.OrtFormatModelProcessor(str(path), found, usage).process()
                except RuntimeError as error:
                    raise ExportError(f"{file}: {first_line(error)}") from error
                except (struct.error, ValueError, TypeError, IndexError) as error:  # of the reader of flatbuffers
                    raise ExportError(f"{file}: is damaged: it cannot be read as ORT format") from error
    names = ", ".join(name for name, _ in graphs)
    lines = [
        f"# Operators of {names}, for build.py --include_ops_by_config of ONNX Runtime.",
        f"# Written by ortcam {__version__} with ONNX Runtime {ort.__version__}.",
    ]
    for domain, sets in sorted(found.items()):
        for opset, operators in sorted(sets.items()):
            said = [f"{each}{(usage and usage.get_config_entry(domain, each)) or ''}" for each in sorted(operators)]
            lines.append(f"{domain};{opset};{','.join(said)}")
    return "\n".join(lines) + "\n"


def _graphs(model: str | os.PathLike[str] | Bundle) -> tuple[str, list[Path]]:
    """What a user calls the model, and its graphs' files.

    Raises:
        OptionError: it is neither a bundle nor a file that ONNX Runtime loads.
        BundleError: the bundle cannot be trusted or read.
    """
    if isinstance(model, Bundle):
        return model.path.name, sorted(model.path / name for name in model.manifest.files if name.endswith(".onnx"))
    if not isinstance(model, str | os.PathLike):
        raise OptionError(f"{model!r}: accepted is a bundle, or a file that ends in .onnx or {SUFFIX}")
    path = Path(model)
    if path.is_dir():
        return _graphs(read_bundle(path))
    if path.suffix in (".onnx", SUFFIX) and path.is_file():
        return path.name, [path]
    raise OptionError(f"{path}: accepted is a bundle, or a file that ends in .onnx or {SUFFIX}")


def _as_loaded(file: Path, folder: Path) -> Iterator[Path]:
    """A graph as ONNX Runtime runs it, in ORT format; each file goes when the next is asked for."""
    if file.suffix == SUFFIX:
        yield file
        return
    target = folder / f"graph{SUFFIX}"
    for how in _LOADED:
        _save(file, target, how)
        yield target
        target.unlink()


def _tools() -> Any:
    """The part of ONNX Runtime that reads ORT format. Its import gives the root logger a handler, which goes again."""
    name = "onnxruntime.tools.ort_format_model"
    if name not in sys.modules:
        root = logging.getLogger()
        before = list(root.handlers)
        importlib.import_module(name)
        root.handlers[:] = before
    return sys.modules[name]
