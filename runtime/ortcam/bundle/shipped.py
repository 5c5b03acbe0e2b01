"""The bundle and the images that come with ortcam: beside this module in a wheel, in `models/` in a checkout."""

from pathlib import Path

from ortcam.errors import BundleError

__all__ = ["bundle_path", "demo_image", "sample_images"]


def _folder() -> Path:
    here = Path(__file__).parent
    for folder in (here / "shipped", here.parents[2] / "models"):
        if (folder / "shapes.ortcam").is_dir():
            return folder
    raise BundleError(f"the shipped bundle shapes.ortcam is neither in {here / 'shipped'} nor in a checkout's models/")


def bundle_path() -> Path:
    """The shipped bundle: a small classifier of drawn objects.

    Raises:
        BundleError: this installation lacks it.
    """
    return _folder() / "shapes.ortcam"


def demo_image() -> Path:
    """The shipped image that `ortcam demo` explains: a mug and an umbrella.

    Raises:
        BundleError: this installation lacks it.
    """
    return _folder() / "shapes" / "samples" / "mug-umbrella.png"


def sample_images() -> list[Path]:
    """The shipped images of drawn objects, by name.

    Raises:
        BundleError: this installation lacks them.
    """
    return sorted((_folder() / "shapes" / "samples").glob("*.png"))
