"""Composing the page of a gallery: photographs and maps become blocks of JSON, which its script draws.

The page holds everything itself: a small copy of each photograph, and each map with 8 bits. The browser draws the
overlays, so opacity and colour map are free to choose. Nothing is loaded from elsewhere.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.images.rendering import BEGIN, COLORMAPS, DIM, FULL, GREY, Rendering, heatmap, shrunk, smoothed
from ortcam.results.columns import SavedResult
from ortcam.support.terminal import printable

__all__ = ["GENERATOR", "as_json", "listed", "page", "photograph_block", "photograph_side", "result_block"]

GENERATOR: Final = "ortcam gallery 1"  # a page of another number is written anew as a whole
_PARTS: Final = Path(__file__).parent
_UNSAFE: Final = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})
# The longer side of a photograph in the page, by the number of photographs: 1,000 take some 15 MB.
_SIDES: Final = ((60, 960), (250, 640), (10**9, 384))
_MAP_SIDE, _SMALL_MAP_SIDE = 64, 32


def page(
    title: str,
    count: str,
    images: Sequence[Mapping[str, Any]],
    photographs: Sequence[str],
    results: Sequence[str],
    *,
    otherwise: str,
) -> str:
    """The page with its style, script and data; it allows no other style and script.

    Args:
        title: of the page.
        count: how many images there are, in words.
        images: one per tile, as `listed` makes them.
        photographs: JSON of `photograph_block`, by their numbers in `images`.
        results: JSON of `result_block`, by their numbers in `images`.
        otherwise: what somebody without JavaScript reads.
    """
    usual = Rendering()
    settings = {
        "count": count,
        "colours": {name: _colours(name) for name in COLORMAPS},
        "colormap": usual.colormap,
        "alpha": usual.alpha,
        "begin": BEGIN,
        "full": FULL,
        "dim": DIM,
        "grey": GREY,
    }
    data = [_script(f'id="{name}"', as_json(value)) for name, value in (("settings", settings), ("list", images))]
    data += [_script('class="photograph"', block) for block in photographs]
    data += [_script('class="result"', block) for block in results]
    parts = {name: (_PARTS / f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")}
    values = {
        "generator": GENERATOR,
        "title": html.escape(title),
        "style": parts["css"],
        "script": parts["js"],
        "style-hash": _hash(parts["css"]),
        "script-hash": _hash(parts["js"]),
        "otherwise": html.escape(otherwise),
        "data": "\n".join(data),
    }
    return re.sub(r"\{\{([a-z-]+)\}\}", lambda place: values[place[1]], parts["html"])


def listed(
    group: Sequence[Mapping[str, Any]], *, first: int, photograph: int | None, sheet: str = ""
) -> dict[str, Any]:
    """What the list of images says about one.

    Args:
        group: blocks of its results.
        first: number of the first one among all results.
        photograph: number of its photograph; None: there is none.
        sheet: address of its sheet.
    """
    top = group[0]["classes"][0]
    models = {found["model"] for found in group}
    methods = [found["title"] + (f", {found['model']}" if len(models) > 1 else "") for found in group]
    words = [group[0]["name"], *methods, *models, *(one["label"] for found in group for one in found["classes"])]
    return {
        "name": group[0]["name"],
        "label": f"{top['label']} {top['probability']:.1%}",
        "photograph": photograph,
        "results": list(range(first, first + len(group))),
        "methods": methods,
        "words": " ".join(dict.fromkeys(words)).lower(),
        "sheet": sheet,
    }


def result_block(saved: SavedResult, name: str, *, small: bool = False) -> dict[str, Any]:
    """What the page says of an explanation.

    Args:
        saved: the explanation.
        name: of its image.
        small: whether its maps are kept smaller.
    """
    side = _SMALL_MAP_SIDE if small else _MAP_SIDE
    at = saved.geometry
    crop = (at.top / at.resized_height, at.left / at.resized_width)
    cell = tuple(a / b for a, b in zip((at.crop_height, at.crop_width), saved.cells, strict=True))
    maps = {n: _shrunk_map(smoothed(saliency, (cell[0], cell[1])), side) for n, saliency in saved.maps.items()}
    return {
        "name": printable(name),
        "model": printable(saved.model),
        "title": printable(saved.title),
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
                **({} if one.is_probability else {"value": one.value, "of": one.of}),
                "flat": not saved.maps[one.index].any(),
                "map": base64.b64encode(maps[one.index].tobytes()).decode(),
            }
            for one in saved.classes
        ],
    }


def photograph_block(pixels: NDArray[np.uint8], side: int) -> dict[str, Any]:
    """A photograph, uint8 RGB [H0,W0,3], with no side of more pixels than `side`."""
    return {"data": f"data:image/webp;base64,{_webp(shrunk(pixels, side))}"}


def photograph_side(count: int) -> int:
    """Pixels of the longer side of a photograph, by the number of photographs."""
    return next(side for most, side in _SIDES if count <= most)


def as_json(value: object) -> str:
    """JSON on one line that ends no script and begins no comment.

    Raises:
        ValueError: a number that is not finite.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script(attribute: str, content: str) -> str:
    return f'<script type="application/json" {attribute}>{content}</script>'


def _shrunk_map(saliency: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """A map with 8 bits and no side of more than so many values: uint8 [h, w]."""
    height, width = saliency.shape
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(saliency, size, interpolation=cv2.INTER_AREA)
    return np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)


def _webp(pixels: NDArray[np.uint8]) -> str:
    _, encoded = cv2.imencode(".webp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 80])
    return base64.b64encode(encoded.tobytes()).decode()


def _colours(name: str) -> str:
    """The 256 colours of a colour map, RGB, in base64."""
    return base64.b64encode(heatmap(np.linspace(0, 1, 256, dtype=np.float32)[None], name).tobytes()).decode()
