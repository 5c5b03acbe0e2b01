"""New rows of images that had failed: kept beside the parts, then put in the place of the old rows, part by part."""

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ortcam.batch.output.index import Index

__all__ = ["Staged", "merged"]

_KEPT = 2  # staged parts in memory


class Staged:
    """The staged rows, by id. In memory are 12 bytes per id, and the rows of few parts."""

    def __init__(self, names: Iterable[str], read: Callable[[str, Sequence[str] | None], pa.Table]) -> None:
        """Find which part has which image.

        Args:
            names: of the staged parts, the newest last.
            read: reads a part: some columns, or all.
        """
        self._read = read
        self._names = list(names)
        self._index = Index(pc.unique(read(name, ["id"])["id"].combine_chunks()) for name in self._names)
        self._tables: dict[str, pa.Table] = {}

    def rows(self, ids: Iterable[str]) -> pa.Table | None:
        """The staged rows of some images, in the order of the parts; None if there are none."""
        wanted: dict[int, list[str]] = {}
        for id_ in ids:
            for place in self._index.places(id_):
                wanted.setdefault(place, []).append(id_)
        found: list[pa.Table] = []
        taken: set[str] = set()
        for place in sorted(wanted, reverse=True):  # of an image that two parts have, the rows of the newest count
            some = [id_ for id_ in wanted[place] if id_ not in taken]
            table = self._table(self._names[place])
            found.insert(0, table.filter(pc.is_in(table["id"], pa.array(some, pa.string()))))
            taken.update(found[0]["id"].to_pylist())
        return pa.concat_tables(found) if taken else None

    def _table(self, name: str) -> pa.Table:
        if name not in self._tables:
            while len(self._tables) >= _KEPT:
                del self._tables[next(iter(self._tables))]
            self._tables[name] = self._read(name, None)
        return self._tables[name]


def merged(old: pa.Table, new: pa.Table) -> pa.Table:
    """The rows of a part, with all rows of some images replaced by new ones, at the place of the first.

    Args:
        old: the part.
        new: the rows of images of the part, of each image together.

    Raises:
        ValueError: an image of `new` is not in `old`.
    """
    rows_of = _places(new["id"])
    pieces, start = [], 0
    for id_, (first, last) in _places(old["id"]).items():
        replaced = rows_of.pop(id_, None)
        if replaced is not None:
            pieces += [old.slice(start, first - start), new.slice(replaced[0], replaced[1] - replaced[0])]
            start = last
    if rows_of:
        raise ValueError(f"{next(iter(rows_of))!r} is not in the part")
    return pa.concat_tables([*pieces, old.slice(start)]).combine_chunks().replace_schema_metadata(old.schema.metadata)


def _places(ids: Iterable[pa.Scalar]) -> dict[str, tuple[int, int]]:
    """First row and row behind the last of each image."""
    found: dict[str, tuple[int, int]] = {}
    for place, scalar in enumerate(ids):
        id_ = scalar.as_py()
        first, last = found.get(id_, (place, place))
        if last != place:
            raise ValueError(f"the rows of {id_!r} are not together")
        found[id_] = (first, place + 1)
    return found
