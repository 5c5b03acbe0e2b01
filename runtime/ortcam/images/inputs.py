"""Image arguments of a command: files, folders, globs and standard input become a list of images."""

import glob
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ortcam.errors import ImageError
from ortcam.images.encoding import is_sheet
from ortcam.images.limits import DEFAULT_MAX_PIXELS, largest_file
from ortcam.support.terminal import complain, printable
from ortcam.support.words import counted

__all__ = [
    "ARRAY_SUFFIXES",
    "MANIFEST",
    "STDIN",
    "STDIN_NAME",
    "SUFFIXES",
    "display_name",
    "expand",
    "from_argument",
    "is_image_name",
    "natural_order",
]

SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".pbm", ".pgm", ".pnm", ".ppm"),
)
ARRAY_SUFFIXES: Final = (".npy", ".npz")  # images where a model takes samples; elsewhere arrays of other use
STDIN: Final = "-"
STDIN_NAME: Final = "stdin"  # what results of standard input are called

_GLOB: Final = re.compile(r"[*?\[]")
MANIFEST: Final = "manifest.json"  # of a saved explanation: the images beside it are ortcam's
_MAP_OF_A_RESULT: Final = re.compile(r"(class-[0-9]+|score)\.npy")
_OF_A_RESULT: Final = re.compile(r"(class-[0-9]+|score)-(heatmap|overlay)\.png|image\.jpg")  # of `Explanation.save`
_DIGITS: Final = re.compile(r"([0-9]+)")
_NAMED: Final = 2  # of the files that are left out


def expand(arguments: Sequence[str], *, tell: Callable[[str], None] | None = None, arrays: bool = False) -> list[str]:
    """List the images that the arguments of a command name.

    Rules:

    1. A file stays as it is, and so does a path that does not exist: reading it gives the error.
    2. A folder gives the images in it, by the end of their names (`SUFFIXES`, and `ARRAY_SUFFIXES` with `arrays`), not
       those in its subfolders.
    3. A glob gives the images that match it. `**` matches subfolders too, as in `'photos/**'`.
    4. Hidden files are left out, and so are images that ortcam made: sheets, overlays, heatmaps, maps.
    5. Images come in natural order: `img2` before `img10`.
    6. An image that a folder or a glob gives again is taken once.
    7. `-` is standard input and stays `-`. `from_argument` reads it.

    Args:
        arguments: as the command line has them.
        tell: called with one line for each folder or glob that has other files, too. By default standard error.
        arrays: whether arrays (.npy, .npz) are images, too: for models that take samples.

    Returns:
        Paths, and `-` for standard input.

    Raises:
        ImageError: a folder or a glob without images, or `-` given twice.

    Example:
        >>> expand(["cat.jpg", "-"])
        ['cat.jpg', '-']
    """
    tell = complain if tell is None else tell
    if arguments.count(STDIN) > 1:
        raise ImageError("- is given twice: standard input has one image")
    images: list[str] = []
    typed: set[str] = set()  # as they are compared: a path that is typed twice is two images, as it says
    listed: set[str] = set()
    for argument in arguments:
        found = _listed(argument, tell, arrays)
        here = listed if found is None else typed | listed
        fresh = [image for image in ([argument] if found is None else found) if os.path.normpath(image) not in here]
        images += fresh
        (typed if found is None else listed).update(os.path.normpath(image) for image in fresh)
    return images


def from_argument(argument: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> str | bytes:
    """Turn one result of `expand` into an image that `Explainer.read` takes: a path, or the bytes of standard input.

    Args:
        argument: a path, or `-`.
        max_pixels: as of `read_image`; it bounds how many bytes are read.

    Raises:
        ImageError: standard input is a terminal, closed, empty or too long.
    """
    return argument if argument != STDIN else _read_stdin(largest_file(max_pixels))


def display_name(argument: str) -> str:
    """Name an image in messages and folders: its path, or `stdin`.

    Example:
        >>> display_name("cat.jpg"), display_name("-")
        ('cat.jpg', 'stdin')
    """
    return STDIN_NAME if argument == STDIN else argument


def is_image_name(name: str, *, arrays: bool = False) -> bool:
    """Tell whether a file is an image that counts in a folder: not hidden, and with the suffix of an image.

    Args:
        name: of the file, without its folder.
        arrays: whether arrays (.npy, .npz) are images, too.

    Example:
        >>> is_image_name("Cat.JPG"), is_image_name(".cat.jpg"), is_image_name("notes.txt")
        (True, False, False)
    """
    suffixes = SUFFIXES + ARRAY_SUFFIXES if arrays else SUFFIXES
    return name.lower().endswith(suffixes) and not name.startswith(".")


def _listed(argument: str, tell: Callable[[str], None], arrays: bool) -> list[str] | None:
    """The images of a folder or a glob; None for everything else."""
    if argument == STDIN or "\0" in argument:
        return None
    path = argument
    if argument.startswith("~") and not os.path.lexists(argument):
        path = str(Path(argument).expanduser()) if not _GLOB.search(argument) else _home(argument)
    if os.path.lexists(path):
        return _of_folder(argument, path, tell, arrays) if Path(path).is_dir() else [path] if path != argument else None
    return _of_glob(argument, path, tell, arrays) if _GLOB.search(path) else None


def _home(pattern: str) -> str:
    """A pattern whose `~` is the user's folder, in which no character counts as a wildcard."""
    first, slash, rest = pattern.partition("/")
    return pattern if _GLOB.search(first) else glob.escape(os.path.expanduser(first)) + slash + rest  # noqa: PTH111


def _of_folder(argument: str, path: str, tell: Callable[[str], None], arrays: bool) -> list[str]:
    try:
        entries = [entry for entry in os.scandir(path) if not entry.name.startswith(".")]
        images = [entry.path for entry in entries if entry.is_file() and _is_image(entry.path, arrays)]
        folders = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise ImageError(f"folder {_shown(argument)} cannot be read ({error.strerror or error})") from None
    taken = set(images)
    others = sorted(entry.name for entry in entries if entry.path not in taken and not entry.is_dir())
    if not images:
        below = f"; {_shown(argument.rstrip('/') + '/**')} takes those in its subfolders" if folders else ""
        raise ImageError(f"folder {_shown(argument)} has no images: {_accepted(arrays)}{below}")
    _tell_of_others(argument, len(images), others, folders, tell, arrays)
    return sorted(images, key=natural_order)


def _of_glob(argument: str, pattern: str, tell: Callable[[str], None], arrays: bool) -> list[str]:
    matches = sorted(set(glob.glob(pattern, recursive=True)))  # noqa: PTH207 - of paths that stay as they are typed
    files = [match for match in matches if Path(match).is_file()]
    images = [match for match in files if _is_image(match, arrays)]
    if not images:
        if not matches:
            raise ImageError(f"glob {_shown(argument)} matches nothing: give the path of an image or of a folder")
        found = counted(len(matches), "name")
        raise ImageError(f"glob {_shown(argument)} matches {found}, but no image: {_accepted(arrays)}")
    taken = set(images)
    _tell_of_others(argument, len(images), [match for match in files if match not in taken], [], tell, arrays)
    return sorted(images, key=natural_order)


def natural_order(path: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: numbers by their value, letters in any case, `img2` before `img10`.

    Example:
        >>> sorted(["img10.png", "img2.png"], key=natural_order)
        ['img2.png', 'img10.png']
    """
    parts = _DIGITS.split(path.replace(os.sep, "/"))
    # Digits are compared by length first, so that no number is too long.
    return [
        (1, len(digits := part.lstrip("0")), digits) if place % 2 else (0, 0, part.casefold())
        for place, part in enumerate(parts)
    ], path


def _is_image(path: str, arrays: bool) -> bool:
    """Whether a file is an image that counts, and none of the images that ortcam writes."""
    file = Path(path)
    if not is_image_name(file.name, arrays=arrays):
        return False
    if _MAP_OF_A_RESULT.fullmatch(file.name) and file.with_name(MANIFEST).is_file():
        return False
    if _OF_A_RESULT.fullmatch(file.name) and file.with_name(MANIFEST).is_file():
        return not any(name.name == "score.npy" or name.match("class-*.npy") for name in file.parent.glob("*.npy"))
    return not is_sheet(file)


def _tell_of_others(
    argument: str,
    images: int,
    others: Sequence[str],
    folders: Sequence[str],
    tell: Callable[[str], None],
    arrays: bool,
) -> None:
    parts = []
    own = sum(is_image_name(os.path.basename(name), arrays=arrays) for name in others)  # noqa: PTH119
    others = [name for name in others if not is_image_name(os.path.basename(name), arrays=arrays)]  # noqa: PTH119
    if own:
        parts.append(counted(own, "picture") + " that ortcam made")
    if others:
        named = ", ".join(printable(os.path.basename(name)) for name in others[:_NAMED])  # noqa: PTH119
        more = ", ..." if len(others) > _NAMED else ""
        parts.append(f"{counted(len(others), 'other file')} ({named}{more})")
    if folders:
        parts.append(f"{counted(len(folders), 'subfolder')} ({_shown(argument.rstrip('/') + '/**')} takes them too)")
    if parts:
        tell(f"{printable(argument)}: {counted(images, 'image')}; left out: {' and '.join(parts)}")


def _accepted(arrays: bool) -> str:
    return f"accepted are files that end in {', '.join(SUFFIXES + ARRAY_SUFFIXES if arrays else SUFFIXES)}"


def _shown(path: str) -> str:
    return f"'{printable(path)}'"


def _read_stdin(most: int) -> bytes:
    stream = None if sys.stdin is None else getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise ImageError("- is standard input, which is closed: give a path, or an image by a pipe")
    if stream.isatty():
        raise ImageError("- is standard input, which is a terminal: give an image to it, say `... - < cat.jpg`")
    try:
        data = bytes(stream.read(most + 1))
    except (OSError, ValueError) as error:
        raise ImageError(f"standard input cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not data:
        raise ImageError("standard input is empty: give the bytes of one image")
    if len(data) > most:
        raise ImageError(
            f"standard input has more than {most} bytes: give a smaller image, or a larger max_pixels (--max-pixels)"
        )
    return data
