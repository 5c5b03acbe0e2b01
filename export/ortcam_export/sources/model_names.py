"""What a user may name as a model, checked without importing PyTorch: a file, package.module:callable, a name."""

import functools
import importlib.machinery
import importlib.util
import pkgutil
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ortcam.models.opening import ACCEPTED
from ortcam.support.extras import TORCH
from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError

__all__ = ["check_model", "check_takes_checkpoint", "is_program_file", "look_beside_user", "torchvision_names"]

# Files that hold a model of PyTorch: a program of torch.export, and TorchScript.
_PROGRAM_SUFFIXES: Final = (".pt2", ".pt", ".pth", ".ts", ".torchscript")
_CHECKPOINT_SUFFIXES: Final = (".bin", ".ckpt", ".pkl", ".pt", ".pth", ".safetensors", ".tar", ".xz")

_ACCEPTED: Final = f"a model is {ACCEPTED}"
# torchvision's folders of models, and what is in them; its classifiers are in no folder.
_KINDS: Final = MappingProxyType(
    {
        "": "classifier",
        "detection": "detection",
        "segmentation": "segmentation",
        "video": "video",
        "optical_flow": "optical flow",
        "quantization": "quantized",
    }
)
_REGISTERED: Final = re.compile(
    r"@register_model\((?:name=)?(?:[\"']([^\"']+)[\"'])?\)[^@]*?(?:@.*?)?^def (\w+)", re.MULTILINE | re.DOTALL
)
_TIMM_MODEL: Final = re.compile(r"^@register_model\s+def (\w+)", re.MULTILINE)


def check_model(model: str | Path) -> None:
    """See what can be seen of a model's name before PyTorch is imported.

    Raises:
        ExportError: no such file or package, a file that holds no model, PyTorch is not installed, or no model of
            torchvision has this name.
    """
    name = str(model)
    path = Path(model)
    if path.suffix.lower() == ".onnx":
        if not path.exists():
            raise ExportError(f"{path}: no such file; {_ACCEPTED}")
        return
    if is_program_file(name):
        _check_program_file(path)
    elif ":" in name:
        _check_package(name)
    elif name not in torchvision_names() and (path.suffix or path.exists() or len(path.parts) > 1):
        _refuse_file(path)
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
        raise ExportError(f"{name}: a model of PyTorch needs torch and torchvision: {TORCH}")
    if ":" not in name and not is_program_file(name):
        _check_torchvision(name)


def check_takes_checkpoint(model: str | Path) -> None:
    """See that a model may be given weights.

    Raises:
        ExportError: its file holds its own.
    """
    if Path(model).suffix.lower() == ".onnx" or is_program_file(str(model)):
        raise ExportError(f"--checkpoint goes with a PyTorch model; {model} holds its own weights")


def is_program_file(name: str) -> bool:
    """Whether a name is that of a file with a PyTorch model in it."""
    return Path(name).suffix.lower() in _PROGRAM_SUFFIXES


def torchvision_names() -> Mapping[str, str]:
    """Names of torchvision's models -> their kind, "classifier" for those that can be exported; read off its files.

    Empty where torchvision is not installed, or is laid out otherwise.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return MappingProxyType({})
    return _names_in(Path(spec.origin).parent / "models")


@functools.cache
def _names_in(folder: Path) -> Mapping[str, str]:
    names: dict[str, str] = {}
    for part, kind in _KINDS.items():
        for file in sorted((folder / part).glob("*.py")):
            try:
                text = file.read_text("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            names |= {given or function: kind for given, function in _REGISTERED.findall(text)}
    return MappingProxyType(names)


def _check_torchvision(name: str) -> None:
    names = torchvision_names()
    kind = names.get(name)
    if not names or kind == "classifier":
        return
    if kind is not None:
        article = "an" if kind[0] in "aeiou" else "a"
        raise ExportError(
            f"{name} is {article} {kind} model; accepted is a classifier of images in float32, say resnet50"
            f"{_what_works(kind)}"
        )
    classifiers = [other for other, kind in names.items() if kind == "classifier"]
    hint = did_you_mean(name, classifiers)
    raise ExportError(
        f"unknown model {name!r}{hint} {_ACCEPTED}"
        if hint
        else f"unknown model {name!r}: {_ACCEPTED}; torchvision.models.list_models() lists the names"
    )


def _what_works(kind: str) -> str:
    if kind == "segmentation":
        return (
            "; `package.module:callable` that returns it takes --activation identity, and `ortcam explain --score "
            "'output[...]'` explains some of its values"
        )
    if kind == "detection":
        return (
            "; a module that returns its raw output, before boxes are picked, takes --activation identity, and `ortcam "
            "explain --score 'output[...]'` explains some of it"
        )
    return ""


def _check_package(name: str) -> None:
    module, _, attribute = name.partition(":")
    package = module.partition(".")[0]
    if not module or not attribute or not all(part.isidentifier() for part in (*module.split("."), attribute)):
        plain = re.sub(r"\W", "", attribute)
        hint = f"did you mean {module}:{plain}?" if plain.isidentifier() and plain != attribute else ""
        raise ExportError(f"{name}: accepted is package.module:callable, say timm.models:resnet18; {hint}".rstrip("; "))
    look_beside_user()
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        raise ExportError(
            f"{name}: No module named {package!r}, neither installed nor in {Path.cwd()}; accepted is "
            "package.module:callable"
        )
    if module not in sys.modules:
        _check_inside(name, module, attribute)


def _check_inside(name: str, module: str, attribute: str) -> None:
    """See that a package holds a module without importing the package; of timm, also that the module has the name."""
    found: importlib.machinery.ModuleSpec | None = None
    whole = ""
    for part in module.split("."):
        whole = f"{whole}.{part}".lstrip(".")
        places = None if found is None else found.submodule_search_locations
        if found is not None and places is None:
            return  # a module and not a package: what it makes of the name, its import says
        within, found = found, importlib.machinery.PathFinder.find_spec(whole, places)
        if found is None:
            if within is None:
                return  # found by another finder than that of files
            there = [item.name for item in pkgutil.iter_modules(within.submodule_search_locations)]
            hint = did_you_mean(part, there) or f"; {within.name} has {', '.join(there[:5])} ..."
            raise ExportError(f"{name}: No module named {whole!r}; accepted is package.module:callable{hint}")
    if module == "timm.models" and found is not None and found.origin is not None:
        texts = [file.read_text("utf-8", "replace") for file in Path(found.origin).parent.glob("*.py")]
        if not any(re.search(rf"\b{attribute}\b", text) for text in texts):
            close = did_you_mean(attribute, sorted({item for text in texts for item in _TIMM_MODEL.findall(text)}))
            raise ExportError(
                f"{name}: timm.models has no {attribute!r}; accepted is package.module:callable"
                f"{close or '; timm.list_models() lists the names'}"
            )


def look_beside_user() -> None:
    """Let modules in the current folder be found, as `python -m` does."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def _check_program_file(path: Path) -> None:
    if not path.exists():
        raise ExportError(f"{path}: no such file; {_ACCEPTED}")
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.namelist()
            pickles = [name for name in inside if name.endswith("/data.pkl")]
            ultralytics = any(b"ultralytics" in archive.read(name) for name in pickles[:1])
    except (OSError, zipfile.BadZipFile):
        inside, ultralytics = [], False
    if ultralytics:
        raise ExportError(
            f"{path}: a model of Ultralytics, which only its own package opens; export it with "
            f"`yolo export model={path.name} format=onnx`, and take the .onnx file"
        )
    if path.suffix.lower() == ".pt2":
        if not inside:
            raise ExportError(
                f"{path}: cannot be read as a program of torch.export; accepted is what its save() writes"
            )
    elif not any(name.endswith("/constants.pkl") for name in inside):
        _refuse_file(path)


def _refuse_file(path: Path) -> None:
    if path.suffix.lower() in _CHECKPOINT_SUFFIXES:
        raise ExportError(
            f"{path}: a checkpoint, which holds weights and no model; name the model that they belong to, and "
            "give this file as --checkpoint"
        )
    if path.suffix.lower() == ".ort" and path.exists():
        raise ExportError(
            f"{path}: a file in ORT format only runs, as one of `ortcam fuse` does by itself; give the model or bundle "
            "that it was made from"
        )
    if not path.exists():
        raise ExportError(f"{path}: no such file, and no name of a model; {_ACCEPTED}")
    raise ExportError(f"{path}: holds no model that ortcam reads; {_ACCEPTED}")
