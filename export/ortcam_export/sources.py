"""Where a classifier comes from: a torchvision name, a callable that returns a module, or an `.onnx` file."""

import dataclasses
import difflib
import importlib
import json
import lzma
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ortcam.bundle import ModelRecord, file_sha256
from ortcam.preprocessing import Preprocessing
from ortcam_export.errors import ExportError

if TYPE_CHECKING:
    import torch

__all__ = ["InputSpec", "InterpolationName", "Source", "open_source"]

InterpolationName = Literal["bilinear", "bicubic"]

DEFAULT_WEIGHTS: Final = "DEFAULT"


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What a user says about a model's input and classes; None where nothing was said.

    Attributes:
        input_size: (height, width) of the model's input.
        resize: length of the image's short side before the centre crop.
        mean: RGB mean, of pixels in [0,1].
        std: RGB standard deviation, of pixels in [0,1].
        interpolation: "bilinear" or "bicubic".
        labels: a file (a JSON list, or one label a line), or the labels themselves.
    """

    input_size: tuple[int, int] | None = None
    resize: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: InterpolationName | None = None
    labels: str | Path | Sequence[str] | None = None

    def preprocessing(self, height: int, width: int) -> Preprocessing:
        """What the user said, for an input of this size; mean and std have to be among it."""
        assert self.mean is not None
        assert self.std is not None
        return Preprocessing(height, width, self.resize, self.mean, self.std, self.interpolation or "bilinear")


@dataclasses.dataclass(frozen=True)
class Source:
    """A classifier ready to be converted.

    Attributes:
        record: what the bundle says of it.
        classifier: the module in eval mode, or the path of the `.onnx` file.
        preprocessing: None where nobody has said what it is.
        preprocessing_source: where the preprocessing came from, in words.
        labels: one a class, or None where nobody has said what they are.
    """

    record: ModelRecord
    classifier: "torch.nn.Module | Path"
    preprocessing: Preprocessing | None
    preprocessing_source: str
    labels: tuple[str, ...] | None


def open_source(
    model: "str | Path | torch.nn.Module",
    *,
    weights: str = DEFAULT_WEIGHTS,
    checkpoint: str | Path | None = None,
    spec: InputSpec | None = None,
) -> Source:
    """Load a classifier with its preprocessing and labels.

    Args:
        model: torchvision name, `package.module:callable`, path of an `.onnx` file, or a module.
        weights: "DEFAULT", a name among torchvision's weights of the model, or "none" for random ones.
        checkpoint: file with a state dict, plain or xz-compressed; loaded weights-only.
        spec: what the user says about input and classes; it overrides what the weights' metadata say.

    Raises:
        ExportError: unknown model, weights that cannot be loaded or do not fit, or what only the user can say.
    """
    spec = spec or InputSpec()
    if isinstance(model, (str, Path)) and str(model).endswith(".onnx"):
        if checkpoint is not None:
            raise ExportError(f"--checkpoint goes with a PyTorch model; {model} holds its own weights")
        return _from_onnx(Path(model), spec)
    _require_torch()
    if not isinstance(model, (str, Path)):
        return _from_module(model, f"{type(model).__module__}:{type(model).__qualname__}", checkpoint, spec)
    name = str(model)
    if ":" in name:
        return _from_module(_call(name), name, checkpoint, spec)
    return _from_torchvision(name, weights, checkpoint, spec)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401, PLC0415
        import torchvision  # noqa: F401, PLC0415
    except ImportError as error:
        raise ExportError(f"{error}; exporting a PyTorch model needs `ortcam[export]`") from None


def _from_onnx(path: Path, spec: InputSpec) -> Source:
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    record = ModelRecord(path.stem, "onnx", path.name, file_sha256(path))
    return Source(record, path, *_said(spec), _read_labels(spec.labels))


def _from_module(module: Any, name: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    import torch  # noqa: PLC0415

    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"{name}: returned {type(module).__name__}, not a torch.nn.Module")
    weights, digest = None, None
    if checkpoint is not None:
        state = _read_checkpoint(Path(checkpoint))
        _load_state(module, state, Path(checkpoint))
        weights, digest = Path(checkpoint).name, file_sha256(Path(checkpoint))
    if spec.input_size is None:
        raise ExportError(f"{name}: the size of its input is not known; say it with --input-size H W")
    return Source(ModelRecord(name, "torch", weights, digest), module.eval(), *_said(spec), _read_labels(spec.labels))


def _call(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does, so that a file beside the user is found
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ExportError(f"{name}: {error}; accepted is package.module:callable") from None
    try:
        return factory()
    except Exception as error:
        raise ExportError(f"{name}: calling it raised {type(error).__name__}: {error}") from error


def _from_torchvision(name: str, weights: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    import torchvision  # noqa: PLC0415

    models = torchvision.models
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"torchvision has {', '.join(known)}"
        raise ExportError(
            f"unknown model {name!r}: accepted is a torchvision name, package.module:callable, or FILE.onnx; {hint}"
        )
    entry = _weights_entry(name, weights, checkpoint)
    labels = _read_labels(spec.labels)
    loaded: str | None
    digest: str | None = None
    if checkpoint is not None:
        path = Path(checkpoint)
        state = _read_checkpoint(path)
        module = models.get_model(name, weights=None, **_classes_of(state))
        _load_state(module, state, path)
        loaded, digest = path.name, file_sha256(path)
    else:
        loaded = None if weights == "none" else entry.name
        try:
            module = models.get_model(name, weights=None if loaded is None else entry)
        except OSError as error:
            raise ExportError(
                f"{name}: the weights {entry.name} cannot be downloaded ({error}); --checkpoint FILE loads a local "
                "file, --weights none leaves them random"
            ) from None
    preset = entry.transforms()
    preprocessing = Preprocessing(
        height=preset.crop_size[0],
        width=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
    said = f"torchvision {entry}"
    changes = _changes(spec)
    if changes:
        preprocessing = dataclasses.replace(preprocessing, **changes)
        said += f", with {', '.join(changes)} as given"
    return Source(
        ModelRecord(name, "torchvision", loaded, digest),
        module.eval(),
        preprocessing,
        said,
        labels or tuple(entry.meta["categories"]),
    )


def _weights_entry(name: str, weights: str, checkpoint: str | Path | None) -> Any:
    """The weights whose metadata give preprocessing and labels.

    With a checkpoint and no word on its recipe this is the first entry, the one with the model's original recipe: newer
    entries were trained for other sizes.
    """
    import torchvision  # noqa: PLC0415

    entries = torchvision.models.get_model_weights(name)
    if weights in ("none", DEFAULT_WEIGHTS):
        return next(iter(entries)) if checkpoint is not None else entries.DEFAULT
    if weights not in entries.__members__:
        raise ExportError(
            f"{name}: unknown weights {weights!r}; accepted: DEFAULT, none, {', '.join(entries.__members__)}"
        )
    return entries[weights]


def _classes_of(state: Mapping[str, "torch.Tensor"]) -> dict[str, int]:
    """num_classes where the checkpoint's last layer has another number than the 1000 of ImageNet."""
    last = list(state.values())[-1]
    return {} if last.ndim == 0 or last.shape[0] == 1000 else {"num_classes": int(last.shape[0])}


def _read_checkpoint(path: Path) -> dict[str, "torch.Tensor"]:
    import torch  # noqa: PLC0415

    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise ExportError(
            f"{path}: not a plain state dict: it holds pickled Python objects (or is not a checkpoint), which could "
            "run code when loaded; save `model.state_dict()` instead"
        ) from None
    except (OSError, EOFError, RuntimeError, lzma.LZMAError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read as a PyTorch checkpoint: {error}") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()) or not state:
        raise ExportError(f"{path}: not a state dict of tensors")
    return {
        key.removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }


def _load_state(module: "torch.nn.Module", state: Mapping[str, "torch.Tensor"], path: Path) -> None:
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes that differ
        details = " ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ExportError(f"{path}: does not fit {type(module).__name__}: {details}") from None
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    problems = [f"{word} {_some(keys)}" for word, keys in (("lacks", missing), ("also has", unexpected)) if keys]
    if problems:
        raise ExportError(f"{path}: does not fit {type(module).__name__}: the checkpoint {' and '.join(problems)}")


def _some(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(keys[:5]) + rest


def _changes(spec: InputSpec) -> dict[str, Any]:
    changes: dict[str, Any] = {
        key: value for key in ("resize", "mean", "std", "interpolation") if (value := getattr(spec, key)) is not None
    }
    if spec.input_size is not None:
        changes["height"], changes["width"] = spec.input_size
    return changes


def _said(spec: InputSpec) -> tuple[Preprocessing | None, str]:
    """Preprocessing in the user's own words; without the size of the input it waits for the graph to say it."""
    if spec.mean is None or spec.std is None or spec.labels is None:
        missing = [
            flag
            for flag, value in (("--mean R G B", spec.mean), ("--std R G B", spec.std), ("--labels FILE", spec.labels))
            if value is None
        ]
        raise ExportError(f"what the model itself does not say has to be given: {', '.join(missing)}")
    return spec.preprocessing(*spec.input_size) if spec.input_size else None, "given by the user"


def _read_labels(labels: str | Path | Sequence[str] | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if not isinstance(labels, (str, Path)):
        return tuple(labels)
    path = Path(labels)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: cannot be read as a file of labels: {error}") from None
    if text.lstrip().startswith(("[", "{")):
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise ExportError(f"{path}: not JSON: {error}") from None
        if isinstance(parsed, dict):
            try:
                parsed = [parsed[str(index)] for index in range(len(parsed))]
            except KeyError as error:
                raise ExportError(
                    f"{path}: an object of labels has the keys 0 to {len(parsed) - 1}; {error} is missing"
                ) from None
    else:
        parsed = [line.strip() for line in text.splitlines() if line.strip()]
    if not parsed or not all(isinstance(item, str) for item in parsed):
        raise ExportError(f"{path}: accepted is a JSON list of strings, or one label a line")
    return tuple(parsed)
