"""What is not installed, and the command that installs it."""

import functools
import json
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

__all__ = ["TORCH", "end_the_command", "install", "missing", "runtimes"]

# ortcam is on no index: where PyTorch alone is missing, this helps whatever way ortcam was installed.
TORCH: Final = "pip install torch torchvision"


@functools.cache
def install(extra: str) -> str:
    """The command that installs an extra, by the way that ortcam itself was installed.

    A package that came from a checkout, a wheel, an archive or a repository says so (PEP 610); another one came from
    an index.

    Example:
        >>> install("gpu").startswith("pip install")
        True
    """
    import importlib.metadata  # noqa: PLC0415 - takes longer than most of ortcam, and nothing else of it is needed

    try:
        text = importlib.metadata.distribution("ortcam").read_text("direct_url.json")
        origin: dict[str, Any] = json.loads(text) if text else {}
        url = str(origin["url"]) if origin else ""
        parts = urlsplit(url)
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        origin, url, parts = {}, "", urlsplit("")
    if parts.scheme != "file":
        vcs = origin.get("vcs_info")
        if isinstance(vcs, dict) and vcs.get("vcs"):
            return f'pip install "ortcam[{extra}] @ {vcs["vcs"]}+{url}"'
        return f'pip install "ortcam[{extra}] @ {url}"' if url else f'pip install "ortcam[{extra}]"'
    place = unquote(parts.path)
    if sys.platform == "win32":
        place = place.lstrip("/")
    directory = origin.get("dir_info")
    if isinstance(directory, dict):
        if Path(place) == _here():
            place = "."
        return f'pip install {"-e " if directory.get("editable") else ""}"{place}[{extra}]"'
    return f'pip install "{place}[{extra}]"'


def runtimes() -> str:
    """The commands that install an ONNX Runtime."""
    return f"{install('cpu')} (any machine), {install('gpu')} (NVIDIA CUDA) or {install('openvino')} (Intel's devices)"


def missing(doing: str, extra: str, error: ImportError) -> str:
    """One sentence: what an import did not find, and the command that helps.

    Args:
        doing: what needs it, say "`ortcam fuse`".
        extra: of ortcam, that has all of it.
        error: what the import raised.

    Example:
        >>> print(missing("--plot", "plot", ModuleNotFoundError("No module", name="matplotlib")).partition(":")[0])
        --plot needs matplotlib, which is not installed
    """
    name = _package(error)
    what = f"{name}, which is not installed" if name else f"what cannot be imported here ({error})"
    return f"{doing} needs {what}: {install(extra)}"


def end_the_command(message: str) -> None:
    """Print one line and exit with code 2 if this process is the command `ortcam`; else do nothing."""
    program = sys.argv[0] if sys.argv else ""
    modules = [module for flag, module in zip(sys.orig_argv, sys.orig_argv[1:], strict=False) if flag == "-m"]
    if Path(program).stem in ("ortcam", "ortcam-script") or (program == "-m" and modules[:1] == ["ortcam"]):
        print(f"ortcam: {message}", file=sys.stderr)
        raise SystemExit(2)


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None


def _package(error: BaseException | None) -> str | None:
    """The package that was not found; None where something else went wrong, say with a library of the system."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("ortcam"):
            return error.name.partition(".")[0]
        error = error.__cause__ or error.__context__
    return None
