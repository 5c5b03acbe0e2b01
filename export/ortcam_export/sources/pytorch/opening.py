"""Loading a classifier from PyTorch: a torchvision name, a callable that returns a module, a program, or a module."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ortcam.bundle import ModelRecord, file_sha256
from ortcam_export.errors import ExportError
from ortcam_export.sources.given.fixed_inputs import read_inputs
from ortcam_export.sources.libraries import read_declared
from ortcam_export.sources.model_names import is_program_file
from ortcam_export.sources.preprocessing import assumed_of, unknown_preprocessing, user_preprocessing
from ortcam_export.sources.pytorch.callables import find, is_model, returned_by
from ortcam_export.sources.pytorch.checkpoints import (
    class_count,
    differing_classes,
    head_note,
    load_state,
    read_checkpoint,
    with_classes,
)
from ortcam_export.sources.pytorch.image_channels import channels_of
from ortcam_export.sources.pytorch.library_modules import (
    declared_input_size,
    declared_labels,
    declared_preprocessing,
    image_argument,
)
from ortcam_export.sources.pytorch.outputs import adapt_module
from ortcam_export.sources.pytorch.plain_modules import plain_module, precision_notes
from ortcam_export.sources.pytorch.programs import (
    image_channels,
    image_keyword,
    image_size,
    is_program,
    open_program,
    open_script,
    read_program_file,
)
from ortcam_export.sources.pytorch.torchvision_models import open_torchvision
from ortcam_export.sources.source import Source
from ortcam_export.sources.types import COMMON_SIDE, InputSpec

if TYPE_CHECKING:
    from ortcam_export.sources.types import Model

__all__ = ["open_torch_model"]


def open_torch_model(model: "Model", *, weights: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    """Load a classifier from PyTorch, with its preprocessing and labels; see `sources.open_source`.

    Raises:
        ExportError: unknown model, weights that cannot be loaded or do not fit, or what only the user can say.
    """
    if spec.input_layout is not None:
        raise ExportError(f"--input-layout {spec.input_layout}: goes with an .onnx file; a PyTorch model takes nchw")
    if not isinstance(model, (str, Path)):
        return _open_given(model, f"{type(model).__module__}:{type(model).__qualname__}", checkpoint, spec)
    name = str(model)
    if is_program_file(name):
        return _from_program(read_program_file(Path(model)), Path(model).name, checkpoint, spec)
    if ":" not in name:
        return open_torchvision(name, weights, checkpoint, spec)
    found = find(name)
    if is_model(found):
        return _open_given(found, name, checkpoint, spec)
    returned, *declarations = returned_by(name)
    for declared in declarations:
        if spec.declared is None:
            spec = dataclasses.replace(spec, declared=read_declared(declared, spec.input_size))
    return _open_given(returned, name, checkpoint, spec, factory=found)


def _open_given(
    given: Any, name: str, checkpoint: str | Path | None, spec: InputSpec, *, factory: Callable[..., Any] | None = None
) -> Source:
    if is_program(given) or isinstance(given, torch.jit.ScriptModule):
        return _from_program(given, name, checkpoint, spec)
    if not isinstance(given, torch.nn.Module):
        what = f"{name} returned {type(given).__name__}, which" if factory is not None else f"{type(given).__name__}"
        raise ExportError(
            f"{what} is no model: accepted is a torch.nn.Module, an ExportedProgram, TorchScript, or one of them and "
            "its preprocessing"
        )
    return _from_module(given, name, checkpoint, spec, factory)


def _from_program(given: Any, name: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    """TorchScript, or a program of torch.export."""
    if checkpoint is not None:
        raise ExportError(f"--checkpoint goes with a module; {name} holds its own weights")
    inputs = read_inputs(spec.inputs)
    if isinstance(given, torch.jit.ScriptModule):
        spec = _sized(spec, name)
        spec = spec.for_channels(channels_of(given, spec), name)
        assert spec.channels is not None
        assert spec.input_size is not None
        notes = precision_notes(given)
        module, fixed = open_script(given, name, (spec.channels, *spec.input_size), inputs)
    else:
        notes = precision_notes(given.module() if isinstance(given, torch.export.ExportedProgram) else given)
        module, fixed = open_program(given, name, inputs)
        size = image_size(module)
        if size is not None and spec.input_size is not None and spec.input_size != size:
            said = " ".join(map(str, spec.input_size))
            raise ExportError(f"{name}: --input-size {said}: the program takes {size[0]} x {size[1]}")
        spec = dataclasses.replace(spec, input_size=spec.input_size or size)
        if (channels := image_channels(module)) is not None:
            spec = spec.for_channels(channels, name)
    spec = dataclasses.replace(spec, inputs={})  # they are part of the module now
    source = _described(module, ModelRecord(name, "torch", None, None), spec, notes, image_keyword(module))
    return dataclasses.replace(source, inputs=fixed)


def _from_module(
    given: torch.nn.Module,
    name: str,
    checkpoint: str | Path | None,
    spec: InputSpec,
    factory: Callable[..., Any] | None,
) -> Source:
    module, notes = plain_module(given, name, own=checkpoint is not None)
    weights, digest = None, None
    if checkpoint is not None:
        path = Path(checkpoint)
        state = read_checkpoint(path)
        module = _with_classes_of(state, module, name, factory)
        load_state(module, state, path)
        weights, digest = path.name, file_sha256(path)
        notes += head_note(module, state)
    record = ModelRecord(name, "torch", weights, digest)
    return _described(module, record, _with_declarations(module, spec), notes, image_argument(module))


def _described(
    module: torch.nn.Module, record: ModelRecord, spec: InputSpec, notes: tuple[str, ...], argument: str | None
) -> Source:
    """A module with what its user, or it itself, says of its input and classes."""
    spec = _sized(spec, record.name)
    assert spec.input_size is not None
    spec = spec.for_channels(channels_of(module, spec, argument), record.name)
    assert spec.input_size is not None
    preprocessing, said = user_preprocessing(spec, spec.input_size, record.name)
    try:
        adapted = adapt_module(module, spec, preprocessing, argument)
    except ExportError as error:
        raise ExportError(". ".join([str(error), *notes])) from error
    return Source(
        record,
        adapted.classifier,
        preprocessing,
        said,
        spec.labels,
        adapted.classes,
        notes,
        labels_source=spec.labels_source,
        assumed=assumed_of(spec, (preprocessing.height, preprocessing.width)),
        inputs=adapted.inputs,
        embeddings=adapted.embeddings,
    )


def _sized(spec: InputSpec, name: str) -> InputSpec:
    """What was said, with a size of the input: for an inspection the most common one.

    Raises:
        ExportError: nobody said it.
    """
    size = spec.input_size or spec.preset_size
    if size is None and not spec.partial:
        raise unknown_preprocessing(name, spec, sized=False)
    return dataclasses.replace(spec, input_size=size or (COMMON_SIDE, COMMON_SIDE))


def _with_classes_of(
    state: Mapping[str, torch.Tensor], module: torch.nn.Module, name: str, factory: Callable[..., Any] | None
) -> torch.nn.Module:
    """The module with a checkpoint's number of classes: built again with `num_classes`, or its last layer replaced."""
    classes = differing_classes(module, state)
    if classes is None:
        return module
    if factory is not None and _takes_classes(factory):
        try:
            rebuilt = factory(num_classes=classes)
        except Exception:  # noqa: BLE001 - whatever it raises: it does not take the number
            rebuilt = None
        rebuilt = rebuilt[0] if isinstance(rebuilt, tuple) and rebuilt else rebuilt
        if isinstance(rebuilt, torch.nn.Module):
            rebuilt, _ = plain_module(rebuilt, name, own=False)
            if class_count(rebuilt, rebuilt.state_dict()) == classes:
                return rebuilt
    return with_classes(module, state)


def _takes_classes(factory: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
    any_name = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return any_name or "num_classes" in parameters


def _with_declarations(module: torch.nn.Module, spec: InputSpec) -> InputSpec:
    """The user's words, completed by what a module of timm or transformers says of itself."""
    declared = spec.declared or declared_preprocessing(module, spec.input_size)
    size = spec.input_size
    if size is None and declared is not None:
        size = declared.preprocessing.height, declared.preprocessing.width
    said = spec.labels is not None
    return dataclasses.replace(
        spec,
        declared=declared,
        input_size=size or declared_input_size(module),
        labels=spec.labels if said else declared_labels(module),
        labels_source="" if said else "the model's own config",
    )
