"""Screen: shows a result inline in a notebook, or in the system's viewer of images."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

from ortcam.errors import OrtcamError

__all__ = ["Shown", "has_screen", "show"]


class Shown(Protocol):
    """What a notebook can show as an image."""

    def _repr_png_(self) -> bytes: ...


def show(image: Shown) -> None:
    """Show an image: inline in a notebook, elsewhere in the system's viewer, which gets a temporary file.

    Raises:
        OrtcamError: there is no screen, as on a server.
    """
    if (display := _notebook_display()) is not None:
        display(image)
        return
    if has_screen():
        import webbrowser  # noqa: PLC0415 - which starts programs, and imports what they need

        with tempfile.NamedTemporaryFile(prefix="ortcam-", suffix=".png", delete=False) as file:
            file.write(image._repr_png_())
        if webbrowser.open(Path(file.name).as_uri()):
            return
        Path(file.name).unlink()
    raise OrtcamError("show(): there is no screen here; save() writes the pictures to a folder, sheet() returns one")


def has_screen() -> bool:
    """Whether a window can be opened, as far as the environment tells."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _notebook_display() -> Any:
    """IPython's `display`, where this process is the kernel of a notebook; else None."""
    python = sys.modules.get("IPython")
    shell = python.get_ipython() if python is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    return display
