"""A page of thumbnails: some images of a batch, drawn by chance, with their maps; as many as a browser takes."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.batch.output.stored import StoredExplanation
from ortcam.batch.output.stores import open_store
from ortcam.batch.storage import joined
from ortcam.errors import ImageError, OutputError
from ortcam.images.inputs import natural_order
from ortcam.images.photograph import read_ahead
from ortcam.results.columns import column_of
from ortcam.results.gallery_page.composing import (
    GENERATOR,
    as_json,
    listed,
    page,
    photograph_block,
    photograph_side,
    result_block,
)
from ortcam.support.terminal import printable
from ortcam.support.words import counted

__all__ = ["FOLDER", "NAME", "Sample", "draw_sample", "page_of", "write_page"]

FOLDER: Final = "_gallery"
NAME: Final = "index.html"

_MOST_PARTS: Final = 1000  # whose ids are read; of more parts, those at equal distances
_HASH: Final = 8  # bytes


@dataclasses.dataclass(frozen=True)
class Sample:
    """Images that were drawn.

    Attributes:
        ids: of each part that has some of them, by its name.
        count: how many images they were drawn from.
        whole: whether these are all images of the output, apart from those that failed.
    """

    ids: Mapping[str, Sequence[str]]
    count: int
    whole: bool


def draw_sample(parts: Sequence[str], ids_of: Callable[[str], Iterable[str]], count: int) -> Sample:
    """Draw images of a batch: those whose ids have the lowest hashes.

    So the same images are drawn again, a larger count adds to those of a smaller one, and memory holds `count` ids and
    those of one part.

    Args:
        parts: names of the parts.
        ids_of: returns the ids of a part.
        count: how many images to draw.
    """
    looked_into = parts
    if len(parts) > _MOST_PARTS:
        looked_into = [parts[int(place)] for place in np.linspace(0, len(parts) - 1, _MOST_PARTS)]
    lowest: list[tuple[int, str, str]] = []
    total = 0
    for part in looked_into:
        ids = list(ids_of(part))
        total += len(ids)
        hashes = _hashes(ids)
        # Those that are low in their part alone may be low among all.
        few = np.argpartition(hashes, count)[:count] if len(ids) > count else np.arange(len(ids))
        lowest += [(int(hashes[place]), ids[place], part) for place in few]
        lowest = sorted(lowest)[:count]
    found: dict[str, list[str]] = {}
    for _, id_, part in lowest:
        found.setdefault(part, []).append(id_)
    return Sample({part: found[part] for part in looked_into if part in found}, total, len(looked_into) == len(parts))


def page_of(explanations: Iterable[StoredExplanation], sample: Sample, title: str) -> str:
    """The page. Memory holds one photograph at a time, and the thumbnails.

    Args:
        explanations: those of the sample, in any order. One whose photograph cannot be fetched any more is left out,
            and counted.
        sample: what they were drawn from.
        title: of the page.
    """
    side = photograph_side(sum(map(len, sample.ids.values())))
    made, missing = [], 0
    for explanation, photograph in read_ahead(explanations, _read):
        try:
            photograph()
        except ImageError:
            missing += 1
            continue
        made.append(_blocks(explanation, side))
        del explanation, photograph
    made.sort(key=lambda item: natural_order(item[0]))
    results = [result for _, result, _ in made]
    return page(
        title,
        _count(len(made), missing, sample),
        [listed([result], first=place, photograph=place) for place, result in enumerate(results)],
        [photograph for _, _, photograph in made],
        [as_json(result) for result in results],
        otherwise="`ortcam.batch.open` reads the same maps.",
    )


def write_page(text: str, folder: str, storage_options: Mapping[str, Any]) -> str:
    """Write the page in a folder, which is made, and return its place.

    Raises:
        OutputError: it cannot be written, or would replace a page that is not from ortcam.
    """
    store = open_store(folder, storage_options)
    place = joined(store.name, NAME)
    before = store.read(NAME)
    if before is not None and GENERATOR.rpartition(" ")[0].encode() not in before[:400]:
        raise OutputError(f"{place}: is not a page that ortcam wrote and is left alone; choose another folder")
    store.make()
    store.write(NAME, text.encode())
    return place


def _read(explanation: StoredExplanation) -> NDArray[np.uint8]:
    return explanation.image


def _blocks(explanation: StoredExplanation, side: int) -> tuple[str, dict[str, Any], str]:
    """The id, the result and the photograph, as the page has them."""
    saved = column_of(explanation.summary(), dict(zip(explanation.targets, explanation.maps, strict=True)))
    result = {**result_block(saved, explanation.id), "place": printable(explanation.path)}
    return explanation.id, result, as_json(photograph_block(explanation.image, side))


def _count(shown: int, missing: int, sample: Sample) -> str:
    """How many images the page has, in words."""
    words = counted(shown, "image")
    if shown + missing < sample.count or not sample.whole:
        words += f", drawn from {'' if sample.whole else 'more than '}{sample.count:,}"
    return f"{words}; of {missing} more the photograph could not be read" if missing else words


def _hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    found = [hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=_HASH).digest() for id_ in ids]
    return np.frombuffer(b"".join(found), np.uint64)
