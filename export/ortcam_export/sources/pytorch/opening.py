"""Classifiers from PyTorch: a torchvision name, a callable that returns a module, or the module itself."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torchvision

from ortcam.bundle import ModelRecord, file_sha256
from ortcam.images.preprocessing import Preprocessing
from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError, first_line
from ortcam_export.sources.libraries import DeclaredPreprocessing, read_declared
from ortcam_export.sources.model_names import check_model, is_program_file, look_beside_user
from ortcam_export.sources.opening import (
    COMMON_SIDE,
    DEFAULT_WEIGHTS,
    InputSpec,
    Source,
    assumed_of,
    said_preprocessing,
    unknown_preprocessing,
)
from ortcam_export.sources.pytorch.checkpoints import (
    class_count,
    differing_classes,
    head_note,
    load_state,
    read_checkpoint,
    with_classes,
)
from ortcam_export.sources.pytorch.library_modules import (
    declared_input_size,
    declared_labels,
    declared_preprocessing,
    image_argument,
)
from ortcam_export.sources.pytorch.outputs import as_classifier, count_classes
from ortcam_export.sources.pytorch.plain_modules import plain_module, precision_notes
from ortcam_export.sources.pytorch.programs import (
    image_keyword,
    image_size,
    is_program,
    open_program,
    open_script,
    read_program_file,
)

if TYPE_CHECKING:
    from ortcam_export.sources.opening import Model

__all__ = ["open_torch_model", "returned_by"]

# Built without their own initialisation, which takes long, and without auxiliary heads, which serve training alone.
_INCEPTIONS: Final[Mapping[str, tuple[str, ...]]] = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
_SEED: Final = 0


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
        return _from_torchvision(name, weights, checkpoint, spec)
    found = _find(name)
    if _is_model(found):
        return _open_given(found, name, checkpoint, spec)
    returned, *declarations = returned_by(name)
    for declared in declarations:
        if spec.declared is None:
            spec = dataclasses.replace(spec, declared=read_declared(declared, spec.input_size))
    return _open_given(returned, name, checkpoint, spec, factory=found)


def returned_by(name: str) -> tuple[Any, ...]:
    """What `package.module:callable` returns, or is: a model, and its preprocessing if it comes with one.

    Raises:
        ExportError: there is no such callable, or it fails.
    """
    found = _find(name)
    returned = found if _is_model(found) else _call(name, found)
    return returned if isinstance(returned, tuple) and len(returned) == 2 else (returned,)


def _is_model(value: object) -> bool:
    return isinstance(value, torch.nn.Module) or is_program(value)


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
    if isinstance(given, torch.jit.ScriptModule):
        spec = _sized(spec, name)
        assert spec.input_size is not None
        notes, module = precision_notes(given), open_script(given, name, spec.input_size)
    else:
        notes = precision_notes(given.module() if isinstance(given, torch.export.ExportedProgram) else given)
        module = open_program(given, name)
        size = image_size(module)
        if size is not None and spec.input_size is not None and spec.input_size != size:
            said = " ".join(map(str, spec.input_size))
            raise ExportError(f"{name}: --input-size {said}: the program takes {size[0]} x {size[1]}")
        spec = dataclasses.replace(spec, input_size=spec.input_size or size)
    return _described(module, ModelRecord(name, "torch", None, None), spec, notes, image_keyword(module))


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
    preprocessing, said = said_preprocessing(spec, spec.input_size, record.name)
    height, width = preprocessing.height, preprocessing.width
    try:
        classifier = as_classifier(module, height=height, width=width, output=spec.output, argument=argument)
    except ExportError as error:
        raise ExportError(". ".join([str(error), *notes])) from error
    classes = count_classes(classifier, height=height, width=width)
    return Source(
        record,
        classifier,
        preprocessing,
        said,
        spec.labels,
        classes,
        notes,
        labels_source=spec.labels_source,
        assumed=assumed_of(spec, (height, width)),
    )


def _sized(spec: InputSpec, name: str) -> InputSpec:
    """What was said, with a size of the input: for an inspection the most common one.

    Raises:
        ExportError: nobody said it.
    """
    if spec.input_size is None and not spec.partial:
        raise unknown_preprocessing(name, spec, sized=False)
    return spec if spec.input_size is not None else dataclasses.replace(spec, input_size=(COMMON_SIDE, COMMON_SIDE))


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


def _find(name: str) -> Any:
    """What `package.module:callable` names."""
    module_name, _, attribute = name.partition(":")
    look_beside_user()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ExportError(
            f"{name}: {_not_importable(module_name, error)}; accepted is package.module:callable"
        ) from None
    except Exception as error:
        raise ExportError(
            f"{name}: importing {module_name} raised {type(error).__name__}: {first_line(error)}"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        there = [key for key in dir(module) if not key.startswith("_") and callable(getattr(module, key, None))]
        hint = did_you_mean(attribute, there) or f"; {_some_of(there)}"
        raise ExportError(
            f"{name}: {module_name} has no {attribute!r}; accepted is package.module:callable{hint}"
        ) from None


def _not_importable(module_name: str, error: ImportError) -> str:
    parent, _, last = module_name.rpartition(".")
    if not isinstance(error, ModuleNotFoundError) or error.name != module_name or parent not in sys.modules:
        return first_line(error)
    there = [found.name for found in pkgutil.iter_modules(getattr(sys.modules[parent], "__path__", []))]
    hint = did_you_mean(last, there) or f"; {_some_of(there)}"
    return f"{first_line(error)}{hint}"


def _some_of(names: list[str]) -> str:
    if not names:
        return "it has none"
    return f"it has {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"


def _call(name: str, factory: Any) -> Any:
    if not callable(factory):
        raise ExportError(f"{name}: is {type(factory).__name__}; accepted is a module, or a callable that returns one")
    try:
        return factory()
    except Exception as error:
        raise ExportError(
            f"{name}: calling it raised {type(error).__name__}: {first_line(error)}; accepted is a callable that "
            "returns a module and needs no arguments"
        ) from error


def _from_torchvision(name: str, weights: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    check_model(name)
    entry = _weights_entry(name, weights, checkpoint)
    preset = entry.transforms()
    recipe = Preprocessing(
        height=preset.crop_size[0],
        width=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
    declared = spec.overriding(spec.declared or DeclaredPreprocessing(recipe, f"torchvision {entry}"))
    preprocessing = declared.preprocessing
    size = preprocessing.height, preprocessing.width
    loaded: str | None
    digest: str | None = None
    notes: tuple[str, ...] = ()
    if checkpoint is not None:
        path = Path(checkpoint)
        module, notes = _from_checkpoint(name, path, size)
        loaded, digest = path.name, file_sha256(path)
    elif weights == "none":
        module, loaded = _with_random_weights(name, size), None
    else:
        module, loaded = _with_released_weights(name, entry), entry.name
    classifier = as_classifier(
        module.eval(), height=preprocessing.height, width=preprocessing.width, output=spec.output
    )
    return Source(
        ModelRecord(name, "torchvision", loaded, digest),
        classifier,
        preprocessing,
        declared.source,
        spec.labels or tuple(entry.meta["categories"]),
        count_classes(classifier, height=preprocessing.height, width=preprocessing.width),
        notes,
        labels_source="" if spec.labels else f"torchvision's {entry}",
        assumed=() if checkpoint is None else _assumed_of_recipe(spec, declared),
    )


def _assumed_of_recipe(spec: InputSpec, declared: DeclaredPreprocessing) -> tuple[str, ...]:
    """What a checkpoint, which says nothing of its preprocessing, takes over from torchvision's own weights."""
    flags = [f"--{name}" for name in ("resize", "mean", "std") if getattr(spec, name) is None]
    if spec.declared is not None or not flags:
        return ()
    p = declared.preprocessing
    sentence = (
        f"the checkpoint was trained with the preprocessing of torchvision's own weights (short side to {p.resize}, "
        f"centre crop {p.height} x {p.width}, ImageNet's mean and std); {', '.join(flags)} say otherwise"
    )
    return (sentence,)


def _from_checkpoint(name: str, path: Path, size: tuple[int, int]) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The model with a checkpoint's weights and as many classes as it has, and what was done for that."""
    state = read_checkpoint(path)
    auxiliary = _INCEPTIONS.get(name, ())
    state = {key: value for key, value in state.items() if not key.startswith(auxiliary)} if auxiliary else state
    module = _build(name, size, trained=True)
    classes = class_count(module, state)
    if classes not in (None, class_count(module, module.state_dict())):
        module = _build(name, size, trained=True, classes=classes)
    load_state(module, state, path)
    return module, head_note(module, state)


def _with_released_weights(name: str, entry: Any) -> torch.nn.Module:
    try:
        module: torch.nn.Module = torchvision.models.get_model(name, weights=entry)
    except OSError as error:
        raise ExportError(
            f"{name}: its weights {entry.name} cannot be downloaded ({error}); load a file of them with "
            "--checkpoint FILE, or leave them random with --weights none"
        ) from None
    return module


def _with_random_weights(name: str, size: tuple[int, int]) -> torch.nn.Module:
    """The model with random weights, such that the logits depend on the image.

    Two kinds of models would have constant logits: ViTs start their last layer at zero, and in GoogLeNet and Inception
    v3 without their own slow initialisation the image fades from layer to layer. A last layer of zeros gets small
    random values, and the convolutions of these two He's initialisation; both are always the same.
    """
    module = _build(name, size, trained=False)
    generator = torch.Generator().manual_seed(_SEED)
    if name in _INCEPTIONS:
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    heads = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)][-1:]
    for head in heads:
        if not head.weight.any():
            torch.nn.init.normal_(head.weight, std=1 / math.sqrt(head.in_features), generator=generator)
    return module


def _build(name: str, size: tuple[int, int], *, trained: bool, classes: int | None = None) -> torch.nn.Module:
    """A torchvision model before its weights; torch's global random state stays as it was.

    Args:
        name: torchvision's.
        size: (H, W) of its input, which ViT and MaxViT are built for.
        trained: whether real weights will be loaded. Those of GoogLeNet and Inception v3 expect pixels in [-1,1] and
            their models convert to it from ImageNet's mean and std, as torchvision's loader sets them up to.
        classes: their number, None for the model's own.
    """
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name.startswith("vit_"):
        options["image_size"] = _side(name, size)
    if name.startswith("maxvit_"):
        options["input_size"] = size
    if name in _INCEPTIONS:
        options |= {"init_weights": False, "aux_logits": False, "transform_input": trained}
    with torch.random.fork_rng(devices=[]):
        module: torch.nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return module


def _side(name: str, size: tuple[int, int]) -> int:
    if size[0] != size[1]:
        raise ExportError(f"{name}: --input-size {size[0]} {size[1]}: accepted is a square for this model")
    return size[0]


def _weights_entry(name: str, weights: str, checkpoint: str | Path | None) -> Any:
    """The weights whose metadata give preprocessing and labels.

    With a checkpoint and no word on its recipe this is the first entry, the one with the model's original recipe: newer
    entries were trained for other sizes.
    """
    entries = torchvision.models.get_model_weights(name)
    if weights in ("none", DEFAULT_WEIGHTS):
        return next(iter(entries)) if checkpoint is not None else entries.DEFAULT
    if weights not in entries.__members__:
        raise ExportError(f"{name}: unknown weights {weights!r}; accepted: none, {', '.join(entries.__members__)}")
    return entries[weights]
