"""`load`: from the name of a model, a bundle or a module to an explainer."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from ortcam.bundle import Bundle, open_bundle, read_bundle
from ortcam.engine.opening import SessionOptions
from ortcam.engine.providers import Provider, resolve_providers
from ortcam.explainer.explainer import Explainer
from ortcam.images.limits import DEFAULT_MAX_PIXELS, check_max_pixels, check_strict, check_white
from ortcam.models.export_options import ExportOptions, check_options
from ortcam.models.opening import bundle_of, log

if TYPE_CHECKING:
    import torch

__all__ = ["load", "load_with"]


def load(
    model: "str | os.PathLike[str] | Bundle | torch.nn.Module",
    *,
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    white: int | None = None,
    strict: bool = False,
    low_memory: bool = False,
    memory_limit: int | None = None,
    precision: str | None = None,
    strict_providers: bool = False,
    **export_options: Unpack[ExportOptions],
) -> Explainer:
    """Open a model for explaining.

    Args:
        model: a bundle: the folder that `ortcam export` wrote, or what `read_bundle` returned; or "shapes", the model
            that ortcam ships. Its schema and hashes are checked first. What was checked is kept in memory and is what
            runs, whatever becomes of the folder.
            Or a model to export: a torchvision name, `package.module:callable`, FILE.onnx, FILE.pt2, or a PyTorch
            module. It is exported once into the user's cache (`ortcam cache`), and again when anything that it was made
            of changes.
        providers: ONNX Runtime execution providers, names or (name, options) pairs, in order of preference; short names
            such as "cuda" are accepted. By default CUDA where this ONNX Runtime has it, then the CPU.
        threads: threads inside an operator on the CPU; None takes the physical cores that this process may use.
        max_pixels: images with more pixels are refused before they are decoded, and files that would take more than
            60 MB and 12 bytes per pixel of this number; `ortcam.images.read_image` has the details.
        white: the sample that is white in PNG, TIFF and PNM images of 16 bits, such as 4095 for 12 bits; None:
            65535, with a warning where that leaves an image dark.
        strict: refuse damaged images that can be read in part, instead of warning.
        low_memory: for small devices: memory is given back after every run, `batch_size="auto"` is 1, and the weights
            are read and checked again whenever a session is opened: an error if the folder has changed. Slower.
        memory_limit: megabytes (millions of bytes) that this process may have resident at its peak, from its start on.
            Batches grow from one masked image while they fit, `batch_size` at most. Where there is little room it is as
            with `low_memory`, and `precision=None` takes the first of the bundle's precisions that fits. An error says
            what would be needed. For one explanation at a time, on Linux; memory of a GPU does not count.
        precision: what the masked passes compute in, "float32", "float16", "int8" or "qnn" where the bundle has it;
            None takes that of the bundle's own graphs. Features and the probabilities of the clean image are the same
            in all.
        strict_providers: a provider that cannot start (no driver, no such library) is an error, instead of a warning
            and the next provider.
        **export_options: what `ortcam_export.export` takes, for a model that is no bundle: `labels`, `preset`,
            `input_size`, `mean`, `std`, `checkpoint`, `layer` and more (`models.export_options.ExportOptions`).

    Example:
        ```python
        ortcam.load("shapes").explain("mug.png").save("out")
        ortcam.load("resnet18").explain("cat.jpg").save("out")
        ortcam.load("model.onnx", preset="imagenet", labels="labels.txt")
        ```

    Raises:
        OrtcamError: the model cannot be exported, or what its export needs is not installed.
        BundleError: the bundle cannot be trusted or read, or has no scorers in this precision.
        ProviderError: a provider that this ONNX Runtime does not have, or a device that this machine does not have.
        OptionError: `threads`, `max_pixels`, `white` or `memory_limit` out of its range (`support.ranges`), `strict` or
            `strict_providers` neither True nor False, or no precision of this name.
        MemoryLimitError: the model does not fit under `memory_limit`.
    """
    options = SessionOptions(resolve_providers(providers), threads, low_memory, strict_providers, memory_limit)
    reading = {"max_pixels": check_max_pixels(max_pixels), "white": check_white(white), "strict": check_strict(strict)}
    return load_with(options, model, reading, export_options, precision=precision)


def load_with(
    options: SessionOptions,
    model: "str | os.PathLike[str] | Bundle | torch.nn.Module",
    reading: Mapping[str, Any],
    export_options: ExportOptions | None = None,
    *,
    precision: str | None = None,
    masks: bool = True,
) -> Explainer:
    """Open a model with options that are made already: the second half of `load`.

    Args:
        options: how sessions are opened.
        model: as `load` takes it.
        reading: `max_pixels`, `white` and `strict`, as `load` takes them.
        export_options: as `load` takes them.
        precision: as `load` takes it.
        masks: whether images will be masked. Without it a memory limit leaves no room for that.

    Raises:
        OrtcamError: as `load`.
    """
    given: ExportOptions = {} if export_options is None else export_options
    held: object = None  # until the explainer holds it
    if isinstance(model, Bundle):
        check_options(given, of_bundle=str(model.path))
        opened = model
    else:
        folder = bundle_of(model, check_options(given), precision=precision, announce=log)
        if options.low_memory or options.limit is not None:
            opened = read_bundle(folder)
        else:
            opened, held = open_bundle(folder, precision)
    options, precision = options.fitted(opened, precision, masks=masks)
    explainer = Explainer(opened, options, **reading, precision=precision)
    del held
    return explainer
