"""Gallery: one `index.html` to leaf through all explanations that are saved below a folder.

The page holds everything itself: a small copy of each photograph, and each map with 8 bits. The browser draws the
overlays, so opacity and colour map are free to choose. Nothing is loaded from elsewhere.
"""

import base64
import contextlib
import hashlib
import html
import json
import os
import re
import stat
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OutputError
from ortcam.images.encoding import is_sheet
from ortcam.images.inputs import natural_order
from ortcam.images.reading import read_image
from ortcam.images.rendering import BEGIN, COLORMAPS, DIM, FULL, GREY, Rendering, heatmap, shrunk, smoothed
from ortcam.results.columns import DAMAGED, SavedResult
from ortcam.results.saved import MANIFEST, PREVIEW, image_sha256, read_manifest
from ortcam.support.files import alone_in, write_whole
from ortcam.support.terminal import as_text, printable
from ortcam.support.words import counted

__all__ = ["check", "write"]

_PAGE: Final = "index.html"
_GENERATOR: Final = "ortcam gallery 1"  # a page of another number is written anew as a whole
_PARTS: Final = Path(__file__).parent / "gallery_page"
_DEEPEST: Final = 3  # folders below the one of the page
_LARGEST_PREVIEW: Final = 4 << 20  # bytes
_BLOCK: Final = re.compile(r'<script type="application/json" class="(photograph|result)">(.*)</script>')
_UNSAFE: Final = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})
# The longer side of a photograph in the page, by the number of photographs: 1,000 take some 15 MB.
_SIDES: Final = ((60, 960), (250, 640), (10**9, 384))
_MANY_MAPS: Final = 1500  # more than these are kept smaller
_MAP_SIDE, _SMALL_MAP_SIDE = 64, 32


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
                page = _page(path.parent, before)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # somebody has changed it
                page = _page(path.parent, {})
            write_whole(path, page.encode(), durable=True)
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
        if f'content="{_GENERATOR}"' not in start or not all_of_them:
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
    side = next(side for most, side in _SIDES if len(ordered) <= most)
    photographs: dict[str, int] = {}
    blocks: dict[str, list[str]] = {"photograph": [], "result": []}
    listed = []
    for (parent, digest), group in ordered:
        group.sort(key=lambda found: found["order"])
        if digest not in photographs:
            image = _photograph(folder, group, digest, side, before)
            if image is not None:
                photographs[digest] = len(blocks["photograph"])
                blocks["photograph"].append(_json(image))
        first = len(blocks["result"])
        blocks["result"] += [_json(found) for found in group]
        top = group[0]["classes"][0]
        models = {found["model"] for found in group}
        methods = [found["title"] + (f", {found['model']}" if len(models) > 1 else "") for found in group]
        words = [group[0]["name"], *methods, *models, *(one["label"] for found in group for one in found["classes"])]
        sheet = f"{parent}.png" if parent else ""
        listed.append(
            {
                "name": group[0]["name"],
                "label": f"{top['label']} {top['probability']:.1%}",
                "photograph": photographs.get(digest),
                "results": list(range(first, len(blocks["result"]))),
                "methods": methods,
                "words": " ".join(dict.fromkeys(words)).lower(),
                "sheet": sheet if sheet and is_sheet(folder / _path_of(sheet)) else "",
            }
        )
    usual = Rendering()
    settings = {
        "count": counted(len(listed), "image"),
        "colours": {name: _colours(name) for name in COLORMAPS},
        "colormap": usual.colormap,
        "alpha": usual.alpha,
        "begin": BEGIN,
        "full": FULL,
        "dim": DIM,
        "grey": GREY,
    }
    data = [_script(f'id="{name}"', _json(value)) for name, value in (("settings", settings), ("list", listed))]
    data += [_script(f'class="{kind}"', block) for kind in blocks for block in blocks[kind]]
    name = printable(as_text(folder.resolve().name))
    title = "Explanations" if name.lower() in ("", "explanations") else f"{name}: explanations"
    return _filled(title, "\n".join(data))


def _filled(title: str, data: str) -> str:
    """The page with its style, script and data; it allows no other style and script."""
    parts = {name: (_PARTS / f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")}
    values = {
        "generator": _GENERATOR,
        "title": html.escape(title),
        "style": parts["css"],
        "script": parts["js"],
        "style-hash": _hash(parts["css"]),
        "script-hash": _hash(parts["js"]),
        "data": data,
    }
    return re.sub(r"\{\{([a-z-]+)\}\}", lambda place: values[place[1]], parts["html"])


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script(attribute: str, content: str) -> str:
    return f'<script type="application/json" {attribute}>{content}</script>'


def _json(value: object) -> str:
    """JSON on one line that ends no script and begins no comment."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


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
        side = _SMALL_MAP_SIDE if small else _MAP_SIDE
        at = saved.geometry
        crop = (at.top / at.resized_height, at.left / at.resized_width)
        cell = tuple(a / b for a, b in zip((at.crop_height, at.crop_width), saved.cells, strict=True))
        maps = {n: shrunk_map(smoothed(saliency, (cell[0], cell[1])), side) for n, saliency in saved.maps.items()}
        value = {
            "made_from": made_from,
            "folder": place,
            "image": printable(str(image_sha256(record["image"]))),
            "has_photograph": PREVIEW in (record.get("files") or ()),
            "name": printable(saved.name or manifest.parent.parent.name or "image"),
            "model": printable(saved.model),
            "title": printable(saved.title),
            "order": [saved.order, place],
            "notes": [printable(note) for note in saved.notes],
            "size": [at.height, at.width],
            "crop": [
                *crop,
                crop[0] + at.crop_height / at.resized_height,
                crop[1] + at.crop_width / at.resized_width,
            ],
            "map_size": list(next(iter(maps.values())).shape),
            "classes": [
                {
                    "index": one.index,
                    "label": printable(one.label),
                    "probability": one.probability,
                    "flat": not saved.maps[one.index].any(),
                    "map": base64.b64encode(maps[one.index].tobytes()).decode(),
                }
                for one in saved.classes
            ],
        }
        _json(value)  # a number that is not finite is none of an explanation's
    except DAMAGED:
        return None
    return value


def _address(path: Path) -> str:
    """A path below the page as a link has it: a name may be no text, and have what is special in an address."""
    return "" if path == Path() else urllib.parse.quote(os.fsencode(path.as_posix()))


def _path_of(address: str) -> str:
    return os.fsdecode(urllib.parse.unquote_to_bytes(address))


def shrunk_map(saliency: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """A map with 8 bits and no side of more than so many values: uint8 [h, w]."""
    height, width = saliency.shape
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(saliency, size, interpolation=cv2.INTER_AREA)
    return np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)


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
                pixels = shrunk(read_image(path), side)
                return {"made_from": made_from, "data": f"data:image/webp;base64,{_webp(pixels)}"}
    return None


def _webp(pixels: NDArray[np.uint8]) -> str:
    _, encoded = cv2.imencode(".webp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 80])
    return base64.b64encode(encoded.tobytes()).decode()


def _colours(name: str) -> str:
    """The 256 colours of a colour map, RGB, in base64."""
    return base64.b64encode(heatmap(np.linspace(0, 1, 256, dtype=np.float32)[None], name).tobytes()).decode()
