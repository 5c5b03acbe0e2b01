"""Gallery: one `index.html` to leaf through all explanations that are saved below a folder.

`gallery_page/composing.py` makes the page of what is found here.
"""

import contextlib
import json
import os
import re
import stat
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ortcam.errors import ImageError, OutputError
from ortcam.images.encoding import is_sheet
from ortcam.images.inputs import natural_order
from ortcam.images.reading import read_image
from ortcam.results.columns import DAMAGED, SavedResult
from ortcam.results.gallery_page.composing import (
    GENERATOR,
    as_json,
    listed,
    page,
    photograph_block,
    photograph_side,
    result_block,
)
from ortcam.results.saved import MANIFEST, PREVIEW, image_sha256, read_manifest
from ortcam.support.files import alone_in, write_whole
from ortcam.support.terminal import as_text, printable
from ortcam.support.words import counted

__all__ = ["check", "write"]

_PAGE: Final = "index.html"
_DEEPEST: Final = 3  # folders below the one of the page
_LARGEST_PREVIEW: Final = 4 << 20  # bytes
_BLOCK: Final = re.compile(r'<script type="application/json" class="(photograph|result)">(.*)</script>')
_MANY_MAPS: Final = 1500  # more than these are kept smaller


def write(folder: str | os.PathLike[str]) -> Path:
    """Write `index.html` in an output folder, from all explanations that are saved below it.

    Call it once at the end of a command. What an earlier page has already is taken from there, so that adding an image
    to a thousand decodes that image alone. Several processes may write: each page has all that was saved before it.

    Args:
        folder: as of `ortcam explain -o`, or any other with folders in which `Explanation.save` has saved, at most
            three levels down.

    Returns:
        The path of the page.

    Raises:
        OutputError: it cannot be written, or the `index.html` that is there is not from ortcam.

    Example:
        >>> explanation.save("out/cat")  # doctest: +SKIP
        >>> ortcam.gallery.write("out")  # doctest: +SKIP
    """
    path = Path(folder) / _PAGE
    try:
        with alone_in(path.parent):
            before = _blocks_of(path)
            try:
                text = _page(path.parent, before)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # somebody has changed it
                text = _page(path.parent, {})
            write_whole(path, text.encode(), durable=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def check(folder: str | os.PathLike[str]) -> None:
    """Find out before the work that a folder holds an `index.html` that is not from ortcam.

    Raises:
        OutputError: it does.
    """
    path = Path(folder) / _PAGE
    try:
        _blocks_of(path, all_of_them=False)
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _blocks_of(path: Path, *, all_of_them: bool = True) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What an earlier page has, by what it was made from.

    Raises:
        OutputError: the file is not from ortcam.
        OSError: it cannot be read.
    """
    if not os.path.lexists(path):
        return {}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    if path.is_symlink() or not path.is_file():
        raise OutputError(
            f"{path}: is not a page that ortcam wrote and is left alone; move it, or choose another folder"
        )
    with path.open(encoding="utf-8", errors="replace") as file:
        start = file.read(400)
        if '<meta name="generator" content="ortcam gallery ' not in start:
            raise OutputError(
                f"{path}: is not a page that ortcam wrote and is left alone; move it, or choose another folder"
            )
        if f'content="{GENERATOR}"' not in start or not all_of_them:
            return {}
        for line in file:
            if (block := _BLOCK.fullmatch(line.rstrip("\n"))) is not None:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    value = json.loads(block[2])
                    found[tuple(value["made_from"])] = value
    return found


def _page(folder: Path, before: Mapping[tuple[Any, ...], dict[str, Any]]) -> str:
    """The page of a folder.

    Args:
        folder: to look through.
        before: blocks of the page that it replaces.
    """
    manifests = list(_manifests(folder))
    results = [
        found
        for path, state in manifests
        if (found := _result(folder, path, state, before, small=len(manifests) > _MANY_MAPS)) is not None
    ]
    entries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for found in results:
        parent = found["folder"].rpartition("/")[0]
        entries.setdefault((parent, found["image"]), []).append(found)
    ordered = sorted(entries.items(), key=lambda item: (natural_order(item[1][0]["name"]), item[0]))
    side = photograph_side(len(ordered))
    photographs: dict[str, int] = {}
    blocks: dict[str, list[str]] = {"photograph": [], "result": []}
    images = []
    for (parent, digest), group in ordered:
        group.sort(key=lambda found: found["order"])
        if digest not in photographs:
            image = _photograph(folder, group, digest, side, before)
            if image is not None:
                photographs[digest] = len(blocks["photograph"])
                blocks["photograph"].append(as_json(image))
        sheet = f"{parent}.png" if parent else ""
        sheet = sheet if sheet and is_sheet(folder / _path_of(sheet)) else ""
        images.append(listed(group, first=len(blocks["result"]), photograph=photographs.get(digest), sheet=sheet))
        blocks["result"] += [as_json(found) for found in group]
    name = printable(as_text(folder.resolve().name))
    return page(
        "Explanations" if name.lower() in ("", "explanations") else f"{name}: explanations",
        counted(len(images), "image"),
        images,
        blocks["photograph"],
        blocks["result"],
        otherwise="The same pictures are in the folders beside it.",
    )


def _manifests(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The manifests below a folder, with their states; links and hidden folders are not followed.

    Raises:
        OSError: the folder itself cannot be read.
    """
    level = [folder]
    for depth in range(_DEEPEST + 1):
        below: list[Path] = []
        for place in level:
            try:
                with os.scandir(place) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError:
                if depth == 0:
                    raise
                continue
            for entry in entries:
                if entry.name == MANIFEST and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(OSError):
                        yield Path(entry.path), entry.stat(follow_symlinks=False)
                elif not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    below.append(Path(entry.path))
        level = below


def _result(
    folder: Path,
    manifest: Path,
    state: os.stat_result,
    before: Mapping[tuple[Any, ...], dict[str, Any]],
    *,
    small: bool,
) -> dict[str, Any] | None:
    """What the page says of a saved explanation; None where it cannot be read."""
    place = _address(manifest.parent.relative_to(folder))
    made_from = ("result", place, state.st_mtime_ns, state.st_size, small)
    if (known := before.get(made_from)) is not None:
        return known
    try:
        record = read_manifest(manifest.parent)
        saved = None if record is None else SavedResult.read(manifest.parent, record)
        if record is None or saved is None or not saved.classes:
            return None
        value = {
            "made_from": made_from,
            "folder": place,
            "image": printable(str(image_sha256(record["image"]))),
            "has_photograph": PREVIEW in (record.get("files") or ()),
            "order": [saved.order, place],
            **result_block(saved, saved.name or manifest.parent.parent.name or "image", small=small),
        }
        as_json(value)  # a number that is not finite is none of an explanation's
    except DAMAGED:
        return None
    return value


def _address(path: Path) -> str:
    """A path below the page as a link has it: a name may be no text, and have what is special in an address."""
    return "" if path == Path() else urllib.parse.quote(os.fsencode(path.as_posix()))


def _path_of(address: str) -> str:
    return os.fsdecode(urllib.parse.unquote_to_bytes(address))


def _photograph(
    folder: Path,
    group: list[dict[str, Any]],
    digest: str,
    side: int,
    before: Mapping[tuple[Any, ...], dict[str, Any]],
) -> dict[str, Any] | None:
    """The photograph of an image, small; None where none was saved, as by earlier versions."""
    made_from = ("photograph", digest, side)
    if (known := before.get(made_from)) is not None:
        return known
    for found in group:
        if not found["has_photograph"]:
            continue
        path = folder / _path_of(found["folder"]) / PREVIEW
        with contextlib.suppress(OSError, ImageError):
            state = path.lstat()
            if stat.S_ISREG(state.st_mode) and state.st_size <= _LARGEST_PREVIEW:
                return {"made_from": made_from, **photograph_block(read_image(path), side)}
    return None
