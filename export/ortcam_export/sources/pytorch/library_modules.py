"""What the modules of timm and transformers say of themselves: preprocessing, labels, the input they take.

Both libraries are optional: they are imported only for a module that comes from them, which has imported them already.
"""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import torch

from ortcam_export.errors import ExportError
from ortcam_export.sources.libraries import from_data_config
from ortcam_export.sources.types import DeclaredPreprocessing

__all__ = ["attention_in_steps", "declared_input_size", "declared_labels", "declared_preprocessing", "image_argument"]

_IMAGES = "pixel_values"


def declared_preprocessing(module: torch.nn.Module, input_size: tuple[int, int] | None) -> DeclaredPreprocessing | None:
    """A timm module's own data config; None for all other modules, transformers' included.

    Args:
        module: any.
        input_size: (height, width) in place of the config's own.

    Raises:
        ExportError: the config asks for what cannot be represented.
    """
    if not _comes_from("timm", module) or not hasattr(module, "pretrained_cfg"):
        return None
    library = importlib.import_module("timm.data")
    return from_data_config(library.resolve_model_data_config(module), input_size)


def declared_input_size(module: torch.nn.Module) -> tuple[int, int] | None:
    """(height, width) of a transformers module's images, where its config says."""
    size = getattr(_config(module), "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None


def declared_labels(module: torch.nn.Module) -> tuple[str, ...] | None:
    """The classes of a timm module with one of ImageNet's sets of classes, or of a transformers config that has names.

    transformers' placeholders (`LABEL_0`) count as no names.
    """
    if _comes_from("timm", module):
        library = importlib.import_module("timm.data")
        subset = library.infer_imagenet_subset(module)
        return None if subset is None else tuple(library.ImageNetInfo(subset).label_descriptions())
    names: dict[Any, Any] = getattr(_config(module), "id2label", None) or {}
    labels = [str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    placeholders = [f"LABEL_{index}" for index in range(len(labels))]
    return None if not labels or labels == placeholders else tuple(labels)


def image_argument(module: torch.nn.Module) -> str | None:
    """The name of a transformers module's argument for images; None for other modules, which take them first.

    Raises:
        ExportError: a transformers module whose input is not an image.
    """
    if not _comes_from("transformers", module) or not hasattr(module, "main_input_name"):
        return None
    argument = str(module.main_input_name)
    if argument != _IMAGES:
        kind = {"input_ids": "a text model", "input_values": "an audio model", "input_features": "an audio model"}
        raise ExportError(
            f"{type(module).__name__} is {kind.get(argument, 'a model')} whose input is {argument!r}; accepted is an "
            f"image classifier, whose input is {_IMAGES!r}"
        )
    return argument


@contextlib.contextmanager
def attention_in_steps(module: torch.nn.Module) -> Iterator[None]:
    """Let transformers' modules compute attention as the plain products that a conversion follows, and restore it.

    torch's exporter cannot decompose the fused attention of some of them (Swin's) while the batch is open.
    """
    configs: list[Any] = [part.config for part in module.modules() if hasattr(part, "set_attn_implementation")]
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


def _config(module: torch.nn.Module) -> Any:
    return getattr(module, "config", None) if _comes_from("transformers", module) else None


def _comes_from(library: str, module: torch.nn.Module) -> bool:
    """Whether a module, or a class it derives from, is the library's."""
    return any(kind.__module__.partition(".")[0] == library for kind in type(module).__mro__)
