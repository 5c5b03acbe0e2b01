"""MODEL, as users name it, and its bundle: the one that it is, or the one that it is exported to once."""

import atexit
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ortcam.bundle import MANIFEST_NAME, Bundle, read_bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.errors import BundleError, OptionError, OrtcamError, OutputError
from ortcam.models.export_options import refuse_with_bundle
from ortcam.models.exporter import extra_for, import_exporter, is_of_torchvision
from ortcam.support.ranges import shown
from ortcam.support.terminal import printable
from ortcam.support.unfinished import temporary_folder

if TYPE_CHECKING:
    from ortcam.models.identity import ModelKey

__all__ = ["ACCEPTED", "SHIPPED", "bundle_of", "file_of", "is_bundle", "log", "read_model"]

SHIPPED: Final = "shapes"
ACCEPTED: Final = (
    "a bundle, `shapes` (the shipped one), a torchvision name such as resnet18, package.module:callable, FILE.onnx, "
    "or FILE.pt2"
)

# Told what is being done, a few words at a time, and a line of what was done at the end.
Announce = Callable[[str], None]


def is_bundle(model: object) -> bool:
    """Whether a model is a bundle, or names one, and not something to be exported."""
    if not isinstance(model, (str, os.PathLike)):
        return False
    name = os.fsdecode(model)
    path = Path(name)
    try:
        if (path / MANIFEST_NAME).exists() or name == SHIPPED or path.suffix == ".ortcam" or not name:
            return True
        # A folder of results may be called after a model of torchvision's.
        return path.is_dir() and _graph_in(path) is None and not (name.isidentifier() and is_of_torchvision(name))
    except (OSError, ValueError):
        return True  # which says what is wrong with it


def _is_of_torch(model: object) -> bool:
    """Whether something is a module or a program of PyTorch, or one of them and its preprocessing."""
    candidate = model[0] if isinstance(model, tuple) and model else model
    return any(base.__module__.partition(".")[0] == "torch" for base in type(candidate).__mro__)


def file_of(model: str) -> str:
    """The `.onnx` file that a folder holds, as Hugging Face's and Custom Vision's exports do; else the model itself."""
    found = _graph_in(Path(model)) if Path(model).is_dir() else None
    return model if found is None else str(found)


def _graph_in(folder: Path) -> Path | None:
    found = sorted(folder.glob("*.onnx"))
    named = [path for path in found if path.name == "model.onnx"]
    return (named or found)[0] if len(found) == 1 or named else None


def bundle_of(
    model: Any,
    options: Mapping[str, Any],
    *,
    precision: str | None = None,
    doing: str = "ortcam.load",
    stage: Announce = lambda _: None,
    announce: Announce = lambda _: None,
) -> Path:
    """The bundle of a model: exported into the user's cache where it is none yet.

    Args:
        model: the path of a bundle, "shapes", a torchvision name, `package.module:callable`, FILE.onnx, FILE.pt2, or a
            module.
        options: of the export; a bundle takes none.
        precision: of the masked passes, which the export has to provide; several with commas.
        doing: what needs it, for messages.
        stage: told what the export does.
        announce: told what the export assumed, where it was kept, and how long it took.

    Returns:
        The bundle. In the cache it stays as long as this process lives.

    Raises:
        OrtcamError: no such model, or it cannot be exported.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if is_bundle(model):
        refuse_with_bundle(given, printable(os.fsdecode(model)))
        if not os.fsdecode(model):
            raise OptionError(f"MODEL is empty; accepted is {ACCEPTED}")
        path = Path(os.fsdecode(model))
        shipped = os.fsdecode(model) == SHIPPED and not (path / MANIFEST_NAME).exists()
        return bundle_path() if shipped else path
    if not isinstance(model, (str, os.PathLike)) and not _is_of_torch(model):
        raise BundleError(f"{shown(model)}: is no model; accepted is {ACCEPTED}, or a torch.nn.Module")
    if precision is not None:
        given["precision"] = precision
    return _exported(model, given, doing, stage, announce)


def read_model(model: Any, *, doing: str) -> Bundle:
    """A bundle as it is, or that of a model as `bundle_of` finds or makes it, which is logged.

    Raises:
        OrtcamError: no such model, or it cannot be exported or read.
    """
    return model if isinstance(model, Bundle) else read_bundle(bundle_of(model, {}, doing=doing, announce=log))


def log(line: str) -> None:
    """Say what an export did and assumed, where nothing in Python handles warnings, on standard error."""
    logging.getLogger("ortcam").warning("ortcam: %s", line)


def _exported(model: Any, given: dict[str, Any], doing: str, stage: Announce, announce: Announce) -> Path:
    """Export a model into the cache, or, where nothing can be kept, for this process alone."""
    # Imported here, so that who has a bundle does not wait for it.
    from ortcam.models.cache import CacheError, obtain, trim  # noqa: PLC0415

    name = file_of(os.fsdecode(model)) if isinstance(model, (str, os.PathLike)) else None
    words = printable(name or type(model).__qualname__)
    started = time.perf_counter()
    assumed: list[str] = []

    def report(text: str) -> None:
        (assumed.append if text.startswith(("assumed", "warning")) else stage)(text)

    def make(place: Path) -> None:
        exporter = _exporter(name, doing)
        exporter.export(name or model, place, report=report, **given)
        if name is not None and Path(name).is_file() and _key(model, name, given, doing) != key:
            shutil.rmtree(place, ignore_errors=True)  # or it would be found for what the file was before
            raise OrtcamError(f"{words}: has changed while it was exported; call again when it is complete")

    def conclude(what: str) -> None:
        announce(f"exported {words} in {time.perf_counter() - started:.1f} s, {what}")
        for line in assumed:
            announce(line)

    key = _key(model, name, given, doing)
    if key is None:
        place = _temporary() / "model.ortcam"
        make(place)
        conclude("for this run alone: its content has no hash to find it by")
        return place
    try:
        place, found = obtain(
            key.key, key.name, key.record, make, waiting=lambda: stage("another process exports it; waiting for that")
        )
    except CacheError as error:
        place = _temporary() / f"{key.name}.ortcam"
        make(place)
        conclude(f"for this run alone: {error}")
    else:
        if not found:
            trim()
            conclude(f"kept in {_short(place.parents[2])} (`ortcam cache` lists it)")
    return place


def _key(model: Any, name: str | None, given: Mapping[str, Any], doing: str) -> "ModelKey | None":
    from ortcam.models.identity import key_of  # noqa: PLC0415 - as above

    returned = None
    if name is None or (":" in name and not Path(name).exists()):
        returned = _exporter(name, doing).identity_of(name or model)
        if returned is None:
            return None
    try:
        return key_of(name or type(model).__qualname__, given, returned=returned)
    except OSError:
        return None  # the export says what is wrong with a file


def _exporter(name: str | None, doing: str) -> Any:
    return import_exporter(f"{doing} {name}" if name else doing, extra_for(name or ""))


def _temporary() -> Path:
    """A new folder that is gone when this process ends."""
    stack = contextlib.ExitStack()
    try:
        folder = stack.enter_context(temporary_folder()) / "bundle"  # the outer one is locked
        folder.mkdir()
    except OSError as error:
        raise OutputError(
            f"{error.filename or 'the folder for temporary files'}: cannot be written: {error.strerror or error}"
        ) from None
    atexit.register(stack.close)
    return folder


def _short(path: Path) -> str:
    """A path as a terminal shows it: ~ for the home folder."""
    with contextlib.suppress(RuntimeError, ValueError):
        return str(Path("~") / path.relative_to(Path.home()))
    return str(path)
