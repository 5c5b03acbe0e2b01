"""What is not installed, and the command that installs it."""

import sys
from pathlib import Path
from typing import Final

__all__ = ["RUNTIMES", "end_the_command", "install", "missing"]


def install(extra: str) -> str:
    """The command that installs an extra.

    Example:
        >>> print(install("gpu"))
        pip install "ortcam[gpu]"
    """
    return f'pip install "ortcam[{extra}]"'


RUNTIMES: Final = (
    f"{install('cpu')} (any machine), {install('gpu')} (NVIDIA CUDA) or {install('openvino')} (Intel's devices)"
)


def missing(doing: str, extra: str, error: ImportError) -> str:
    """One sentence: what an import did not find, and the command that helps.

    Args:
        doing: what needs it, say "`ortcam fuse`".
        extra: of ortcam, that has all of it.
        error: what the import raised.

    Example:
        >>> print(missing("--plot", "plot", ModuleNotFoundError("No module", name="matplotlib")))
        --plot needs matplotlib, which is not installed: pip install "ortcam[plot]"
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


def _package(error: BaseException | None) -> str | None:
    """The package that was not found; None where something else went wrong, say with a library of the system."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("ortcam"):
            return error.name.partition(".")[0]
        error = error.__cause__ or error.__context__
    return None
