"""What a PyTorch module takes and returns, made images to logits [N,classes]; or an error that says what would work."""

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnx_ir as ir
import torch

from ortcam.bundle import FixedInput, OutputPart
from ortcam.images.preprocessing import Preprocessing
from ortcam_export.errors import ExportError, first_line
from ortcam_export.sources.given.class_embeddings import embeddings_of
from ortcam_export.sources.given.embeddings import ClassEmbeddings
from ortcam_export.sources.given.fixed_inputs import read_inputs
from ortcam_export.sources.given.output_names import several_names
from ortcam_export.sources.pytorch.arguments import Arguments, arguments_of, missing_arguments
from ortcam_export.sources.types import InputSpec

__all__ = ["Adapted", "LogitsOf", "adapt_module", "as_classifier", "count_classes", "forget_adapter", "output_shape"]

_ACCEPTED: Final = "accepted is a classifier, which returns one tensor of logits [N,classes]"
_VALUES: Final = "accepted is one tensor of floating values [N,...] per image, in a shape that no image changes"
_PROBES: Final = 2
_SCOPES: Final = "pkg.torch.onnx.name_scopes"

_Path = tuple[str | int, ...]


class LogitsOf(torch.nn.Module):
    """A module whose output is the logits of another's, or its values.

    Args:
        inner: takes images [N,C,H,W] and returns anything that holds the logits.
        path: keys and indices to the logits in what it returns.
        arguments: how it is called.
        classes: embeddings, if its output is the embedding of an image.
        shape: of one image's output, before it is flattened.
        parts: several outputs that are put one behind the other in place of one, each with its keys and indices.
    """

    def __init__(
        self,
        inner: torch.nn.Module,
        path: _Path,
        arguments: Arguments,
        classes: ClassEmbeddings | None = None,
        shape: tuple[int, ...] = (),
        parts: Sequence[tuple[OutputPart, _Path]] = (),
    ) -> None:
        super().__init__()
        self.inner = inner
        self.path = path
        self.arguments = arguments
        self.shape = shape
        self.parts = tuple(part for part, _ in parts)
        self.paths = tuple(path for _, path in parts) or (path,)
        self.scale, self.bias = (1.0, 0.0) if classes is None else (classes.scale, classes.bias)
        rows = None if classes is None else torch.from_numpy(classes.rows.copy())
        self.classes = None if rows is None else torch.nn.Parameter(rows, requires_grad=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Float32 images [N,C,H,W] to logits [N,classes]; all other shapes are flattened behind N."""
        output = self.arguments.call(self.inner, image)
        rows = [_at(output, path) for path in self.paths]
        rows = [values.unsqueeze(1) if values.ndim == 1 else values.flatten(1) for values in rows]
        logits = rows[0] if len(rows) == 1 else torch.cat([values.float() for values in rows], 1)
        if self.classes is None:
            return logits
        return torch.nn.functional.linear(torch.nn.functional.normalize(logits), self.classes) * self.scale + self.bias


@dataclasses.dataclass(frozen=True)
class Adapted:
    """A module that takes images alone and returns one tensor [N,outputs].

    Attributes:
        classifier: the module.
        classes: how many it tells apart, or how many values it gives; None where that is not known, or where values
            have no names.
        inputs: further arguments that were fixed.
        embeddings: of the classes, if it is an encoder.
    """

    classifier: torch.nn.Module
    classes: int | None
    inputs: Mapping[str, FixedInput]
    embeddings: ClassEmbeddings | None


def adapt_module(
    module: torch.nn.Module, spec: InputSpec, preprocessing: Preprocessing, argument: str | None = None
) -> Adapted:
    """Fix a module's further arguments, take one of its outputs, and make a classifier of an encoder.

    Args:
        module: in eval mode; it stays as it is.
        spec: what was said.
        preprocessing: from a photograph to its input.
        argument: the name of its argument for the images, where it is not the first.

    Raises:
        ExportError: see `as_classifier`, `arguments_of` and `embeddings_of`.
    """
    height, width, channels = preprocessing.height, preprocessing.width, len(preprocessing.mean)
    embeddings = embeddings_of(spec)
    given = read_inputs(spec.inputs)
    arguments = arguments_of(module, argument, given)
    raw = spec.activation == "identity"
    classifier = as_classifier(
        module,
        height=height,
        width=width,
        output=spec.output,
        arguments=arguments,
        raw=raw,
        classes=embeddings,
        channels=channels,
    )
    if raw:
        shape = classifier.shape if isinstance(classifier, LogitsOf) else ()
        classes = shape[0] if len(shape) == 1 else None
    else:
        classes = count_classes(classifier, height=height, width=width, channels=channels)
    inputs = classifier.arguments.records(given) if isinstance(classifier, LogitsOf) else {}
    return Adapted(classifier, classes, inputs, embeddings)


def as_classifier(
    module: torch.nn.Module,
    *,
    height: int,
    width: int,
    output: str | None,
    arguments: Arguments | None = None,
    raw: bool = False,
    classes: ClassEmbeddings | None = None,
    channels: int = 3,
) -> torch.nn.Module:
    """A module that returns one tensor of logits [N,classes]: the module itself where it does, else `LogitsOf` it.

    It is run once, on two images of zeros. The logits are what it returns where that is a tensor; of a dict (as
    transformers' outputs are) or a tuple they are the entry that `output` names, the entry `logits`, or the only one.

    Args:
        module: in eval mode; takes images [N,channels,height,width].
        height: rows of an image.
        width: columns of an image.
        output: key of a dict, or index of a tuple, as a user writes it, with dots between those of containers inside
            each other; None where the user said nothing.
        arguments: how the module is called; None: with images alone.
        raw: whether the output holds values, in any shape.
        classes: embeddings, if the output is the embedding of an image.
        channels: of an image.

    Raises:
        ExportError: it does not take such images, or what it returns is not a classifier's.
    """
    images = torch.zeros(_PROBES, channels, height, width)
    arguments, returned = _called(module, arguments or Arguments(), images)
    if several := _paths_to_values(returned, output, raw=raw):
        parts = [(OutputPart(name, _shape_for_one(_at(returned, path))), path) for name, path in several.items()]
        return LogitsOf(module, (), arguments, parts=parts).eval()
    path = _path_to_logits(returned, output, raw=raw)
    logits = _at(returned, path)
    (_check_values if raw else _check_logits)(logits, returned)
    if classes is not None:
        classes.check_dimension(logits[0].numel(), "the model")
    if not path and logits.ndim == 2 and arguments.plain and classes is None:
        return module
    return LogitsOf(module, path, arguments, classes, _shape_for_one(logits) if raw else ()).eval()


def output_shape(classifier: torch.nn.Module, outputs: int) -> tuple[int, ...]:
    """The shape of one image's output of a module of `as_classifier`, which gives so many numbers."""
    return (isinstance(classifier, LogitsOf) and classifier.shape) or (outputs,)


def _called(module: torch.nn.Module, arguments: Arguments, images: torch.Tensor) -> tuple[Arguments, Any]:
    """What a module returns, and the arguments that it took."""
    failure: Exception | None = None
    for reading in arguments.readings():
        try:
            with torch.inference_mode():
                return reading, reading.call(module, images)
        except Exception as error:  # noqa: BLE001 - whatever a module raises
            failure = failure or error
    if (missing := missing_arguments(module, arguments)) is not None:
        raise ExportError(missing) from failure
    tensors = ((name, value) for name, value in arguments.fixed.items() if isinstance(value, torch.Tensor))
    with_them = "".join(f", {name} {_describe(value)}" for name, value in tensors)
    assert failure is not None
    raise ExportError(
        f"the model does not take an image {_in_brackets(images)}{with_them}: {first_line(failure)}"
    ) from failure


def _in_brackets(images: torch.Tensor) -> str:
    return f"[N,{','.join(map(str, images.shape[1:]))}]"


def _shape_for_one(values: torch.Tensor) -> tuple[int, ...]:
    """Of the output for an image: (D,) of [N,D], [N] and [N,D,1,1], which mean the same."""
    sides = tuple(values.shape[1:])
    return (values[0].numel(),) if not sides or sides[1:] == (1, 1) else sides


def count_classes(classifier: torch.nn.Module, *, height: int, width: int, channels: int = 3) -> int | None:
    """How many classes a module of `as_classifier` tells apart; it is run once, on noise.

    None where its scores are in order for each image: they may be the best of more classes, by rank.
    """
    noise = torch.randn(_PROBES, channels, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = classifier(noise)
    steps = logits.diff(dim=1)
    if logits.shape[1] > 1 and bool((steps <= 0).all() or (steps >= 0).all()):
        return None
    return int(logits.shape[1])


def forget_adapter(model: ir.Model) -> None:
    """Take `LogitsOf` out of the module paths of a converted graph, so that layers keep their module's own names."""
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(_SCOPES)
        if scopes is None:
            continue
        root, *paths = ast.literal_eval(scopes)
        if paths and paths[0] == "inner":
            paths = paths[1:]  # the inner module is the root now
        node.metadata_props[_SCOPES] = repr([root, *(path.removeprefix("inner.") for path in paths)])


def _paths_to_values(returned: Any, output: str | None, *, raw: bool) -> dict[str, _Path]:
    """Keys and indices to each of several outputs that a user names; none where one is named."""
    if output is None or _path_of(returned, output) is not None:
        return {}  # `_path_to_logits` finds one
    found: dict[str, _Path] = {}
    for name in several_names(output, raw=raw) if not isinstance(returned, torch.Tensor) else ():
        if (path := _path_of(returned, name)) is None:
            raise ExportError(f"--model-output {output}: no {name!r} among {_describe(returned)}; accepted are these")
        _check_values(_at(returned, path), returned)
        found[name] = path
    return found


def _at(returned: Any, path: _Path) -> Any:
    """What lies at keys and indices in what a module returns."""
    for key in path:
        returned = _entry(returned, key)
    return returned


def _path_to_logits(returned: Any, output: str | None, *, raw: bool) -> _Path:
    if isinstance(returned, torch.Tensor):
        if output is not None:
            raise ExportError(f"--model-output {output}: the model returns one tensor; leave the flag out")
        return ()
    entries = _entries(returned)
    if output is not None:
        path = _path_of(returned, output)
        if path is None:
            raise ExportError(
                f"--model-output {output}: the model returns {_describe(returned)}; accepted is one of these"
            )
        return path
    if "logits" in entries:
        return ("logits",)
    if len(entries) == 1:
        [(key, value)] = entries.items()
        if isinstance(value, torch.Tensor):
            return (key,)
    fits = _are_values if raw else _are_logits
    several = [name for name, value in _leaves(returned) if fits(value)]
    hint = f"; --model-output {several[0]} takes one of them" if several else _what_works(returned)
    raise ExportError(
        f"the model returns {_describe(returned)}{_looks_like(returned)}; {_VALUES if raw else _ACCEPTED}{hint}"
    )


def _path_of(returned: Any, output: str) -> _Path | None:
    """Keys and indices to what a user names, say `boxes` or `1.0`; None where there is none."""
    entries = _entries(returned)
    key = next((key for key in entries if str(key) == output), None)
    if key is not None:
        return (key,)
    if isinstance(returned, Sequence) and output.isdecimal() and int(output) < len(returned):
        return (int(output),)  # of a named tuple
    for key, value in entries.items():
        if output.startswith(f"{key}."):
            rest = _path_of(value, output.removeprefix(f"{key}."))
            if rest is not None:
                return (key, *rest)
    return None


def _leaves(returned: Any, prefix: str = "") -> list[tuple[str, torch.Tensor]]:
    """The tensors in what a module returns, by the name that `--model-output` takes."""
    if isinstance(returned, torch.Tensor):
        return [(prefix.removesuffix("."), returned)]
    return [leaf for key, value in _entries(returned).items() for leaf in _leaves(value, f"{prefix}{key}.")]


def _entries(returned: Any) -> dict[str | int, Any]:
    """What a container holds, by key or index; empty for what is no container."""
    if isinstance(returned, Mapping):
        return {key: value for key, value in returned.items() if value is not None}
    if names := _field_names(returned):
        return {name: value for name in names if (value := getattr(returned, name)) is not None}
    if isinstance(returned, Sequence) and not isinstance(returned, str):
        return dict(enumerate(returned))
    return {}


def _field_names(returned: Any) -> tuple[str, ...]:
    """The attributes of a dataclass, a named tuple, or another plain object that hold tensors; empty for all else."""
    if isinstance(returned, torch.Tensor | type):
        return ()
    if dataclasses.is_dataclass(returned):
        return tuple(field.name for field in dataclasses.fields(returned))
    if isinstance(returned, tuple):
        return tuple(getattr(returned, "_fields", ()))
    held = getattr(returned, "__dict__", {})
    return tuple(name for name, value in held.items() if isinstance(value, torch.Tensor))


def _entry(returned: Any, key: str | int) -> Any:
    """The entry of a container that `_entries` calls so."""
    return getattr(returned, str(key)) if key in _field_names(returned) else returned[key]


def _check_logits(logits: Any, returned: Any) -> None:
    if not isinstance(logits, torch.Tensor) or not _are_logits(logits):
        looks = _looks_like(returned) or _looks_like(logits)
        works = _what_works(logits) if isinstance(logits, torch.Tensor) else _what_works(returned)
        raise ExportError(f"the model returns {_describe(logits)}{looks}; {_ACCEPTED}{works}")


def _check_values(values: Any, returned: Any) -> None:
    if not isinstance(values, torch.Tensor) or not _are_values(values):
        several = [name for name, value in _leaves(returned) if name and _are_values(value)]
        hint = f"; --model-output {several[0]} takes one of them" if several else ""
        raise ExportError(f"the model returns {_describe(values)}; {_VALUES}{hint}")


def _are_logits(tensor: torch.Tensor) -> bool:
    """Whether it is float [N,classes], or [N] or [N,classes,1,1], which mean the same."""
    fits = tensor.ndim in (1, 2) or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1))
    return fits and _are_values(tensor)


def _are_values(tensor: torch.Tensor) -> bool:
    """Whether it holds floating numbers for each image."""
    of_each = tensor.ndim > 0 and tensor.shape[0] == _PROBES
    return of_each and tensor.is_floating_point() and tensor.numel() > 0


def _what_works(returned: Any) -> str:
    """How a model that is no classifier can be explained, as the end of a sentence; empty where it cannot."""
    one_per_image = isinstance(returned, Sequence) and any(isinstance(part, Mapping) for part in returned)
    values = [] if one_per_image else [name for name, value in _leaves(returned) if _are_values(value)]
    if values:
        flag = f" --model-output {values[0]}" if values[0] else ""
        how = f"`--activation identity{flag}` takes its values"
        return f"; {how}, and `ortcam explain --score 'output[...]'` explains some of them"
    if _looks_like(returned):
        return (
            "; a module that returns its raw output, before boxes are picked, works with `--activation identity` and "
            "`ortcam explain --score 'output[...]'`"
        )
    return ""


def _describe(value: Any) -> str:
    """A value in words, with the batch size as N."""
    if isinstance(value, torch.Tensor):
        sides = ["N" if axis == 0 and side == _PROBES else str(side) for axis, side in enumerate(value.shape)]
        kind = "a tensor" if value.is_floating_point() else f"a tensor of {str(value.dtype).removeprefix('torch.')}"
        return f"{kind} [{','.join(sides)}]"
    entries = _entries(value)
    if not entries:
        return f"{type(value).__name__}"
    named = (f"{key}: {_describe(entry).removeprefix('a tensor ')}" for key, entry in entries.items())
    return f"{type(value).__name__} of {', '.join(named)}"


def _looks_like(value: Any) -> str:
    """What kind of model returns this, as the end of a sentence's first half; empty where it cannot be told."""
    parts = list(_entries(value).values()) if not isinstance(value, torch.Tensor) else [value]
    if any(key in _entries(part) for part in (value, *parts) for key in ("boxes", "pred_boxes")):
        return ", as a detection model does"
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if tensors and all(part.ndim == 4 and part.shape[2:] != (1, 1) for part in tensors):
        return ", as a segmentation model does"
    return ""
