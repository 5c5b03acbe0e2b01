"""The images of an evaluation: a folder, a folder of class folders, single files, or a CSV with classes and boxes."""

import csv
import dataclasses
import functools
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import DatasetError, TargetError
from ortcam.images.inputs import ARRAY_SUFFIXES, SUFFIXES, is_image_name
from ortcam.images.preprocessing import Preprocessing
from ortcam.support.csv_rows import CsvRows
from ortcam.support.ranges import Range, shown
from ortcam.support.terminal import as_text
from ortcam.support.walking import files_below

__all__ = ["Box", "Example", "inside_boxes", "read_dataset"]

# x0, y0, x1, y1 in pixels of the upright image; x1 and y1 lie outside.
Box = tuple[float, float, float, float]

_FILE_COLUMNS: Final = ("file", "filename", "image", "path")
_CLASS_COLUMNS: Final = ("class", "class_index", "label")
_MOST_OF_A_LIST: Final = 2**28  # bytes; a million images with boxes take a quarter of it
_INDEX: Final = re.compile("[0-9]{1,9}")
_SIZE: Final = Range("size", 1, 1_000_000)
_PLACE: Final = Range("box", -1e9, 1e9, whole=False)
_SHAPE_TOLERANCE: Final = 0.02  # of width by height, for sizes that were rounded
_BOX_COLUMNS: Final = ("boxes", "boxes_x0_y0_x1_y1")


@dataclasses.dataclass(frozen=True)
class Example:
    """An image to evaluate on.

    Attributes:
        name: unique; the path relative to the folder or CSV.
        path: of the file.
        label: class index, where it is known.
        boxes: of objects of that class; empty if unknown.
        size: width and height that the boxes are given for, at any scale of the upright image; None: the file's own.
    """

    name: str
    path: Path
    label: int | None = None
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] | None = None


def read_dataset(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    class_index: Callable[[int | str], int],
    *,
    annotations: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
    arrays: bool = False,
) -> list[Example]:
    """Find the images, their classes and boxes; no image is opened.

    Args:
        source: one of these:

            - a folder of images,
            - a folder with one folder per class, named by its label or index,
            - an image, or a list of images,
            - a CSV with a header. It needs a column `file`. It may have `class` (a label or an index), `boxes`
              (x0 y0 x1 y1 in pixels; a semicolon between boxes), and `width` and `height` of the image that the boxes
              are given for. Files lie beside the CSV, or in the folder of its name.
        class_index: from a label or an index to the index, or TargetError; `Explainer.class_index`.
        annotations: what the images of a folder show: a CSV as above, or a JSON object from file names or class folders
            to classes.
        limit: how many images to take. Chance decides which. A larger limit adds to those of a smaller one.
        seed: of that chance.
        tell: called with a sentence where something is left out.
        arrays: whether arrays (.npy, .npz) are images, too: the model takes samples.

    Raises:
        DatasetError: nothing there, or a line that makes no sense.
        TargetError: a class that the model does not have.
    """
    listed = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not listed:
        raise DatasetError("images: the list is empty; accepted are a folder, a CSV, or images")
    path, where = Path(listed[0]), str(listed[0])
    table = None if annotations is None else Path(annotations)
    if table is not None and not (len(listed) == 1 and path.is_dir()):
        raise DatasetError(f"--annotations {table}: goes with a folder of images; {path} is none")
    if len(listed) > 1 or (is_image_name(path.name, arrays=arrays) and not path.is_dir()):
        where = "the list of images"
        examples = [Example(as_text(Path(item).as_posix()), Path(item)) for item in listed]
    elif path.is_dir():
        examples = _from_folder(path, class_index, table, tell, arrays=arrays)
    elif path.is_file():
        examples = list(_from_csv(path, _csv_folder(path), class_index))
        _check_there(examples, path)
    else:
        raise DatasetError(f"{path}: there is no such folder, image or CSV")
    if not examples:
        accepted = ", ".join((*SUFFIXES, *(ARRAY_SUFFIXES if arrays else ())))
        raise DatasetError(f"{where}: no images in it; accepted are files that end in {accepted}")
    _check_twice(examples, where)
    if limit is not None and limit < len(examples):
        kept = np.random.default_rng(seed).permutation(len(examples))[:limit]
        examples = [examples[index] for index in sorted(kept)]
    return examples


def inside_boxes(example: Example, preprocessing: Preprocessing, height: int, width: int) -> NDArray[np.bool_]:
    """Tell which pixels of the model's input have their centre in a box: bool [H,W].

    Args:
        example: with the boxes.
        preprocessing: of the model.
        height: of the upright image, in pixels.
        width: the same.

    Raises:
        DatasetError: the boxes are given for an image of another shape.
    """
    at = preprocessing.geometry(height, width)
    boxes_width, boxes_height = example.size or (width, height)
    if abs(boxes_width * height / (boxes_height * width) - 1) > _SHAPE_TOLERANCE:
        raise DatasetError(
            f"boxes are given for {boxes_width} x {boxes_height} pixels, but the upright image has {width} x {height}"
        )
    x = (np.arange(at.crop_width) + 0.5 + at.left) * boxes_width / at.resized_width
    y = (np.arange(at.crop_height) + 0.5 + at.top) * boxes_height / at.resized_height
    inside = np.zeros((at.crop_height, at.crop_width), np.bool_)
    for x0, y0, x1, y1 in example.boxes:
        inside |= ((y0 <= y) & (y < y1))[:, None] & ((x0 <= x) & (x < x1))
    return inside


def _from_folder(
    folder: Path,
    class_index: Callable[[int | str], int],
    labels: Path | None,
    tell: Callable[[str], None],
    *,
    arrays: bool,
) -> list[Example]:
    is_image = functools.partial(is_image_name, arrays=arrays)
    found = [folder / name for name in sorted(files_below(folder, is_image))]
    if labels is not None and labels.suffix.lower() != ".json":
        rows = list(_from_csv(labels, folder, class_index))
        _check_twice(rows, str(labels))
        given = {example.name: example for example in rows}
        examples = [_example(path, folder, None) for path in found]
        _check_labels(labels, given, (example.name for example in examples))
        return [given.get(example.name, example) for example in examples]
    classes: dict[str, int] = {} if labels is None else _read_json(labels, class_index)
    if labels is not None:
        parts = (path.relative_to(folder) for path in found)
        _check_labels(labels, classes, (name for part in parts for name in (part.as_posix(), part.parts[0])))
    names = [path.relative_to(folder) for path in found]
    below = [name for name in names if len(name.parts) > 1 and name.as_posix() not in classes]
    unsaid = list(dict.fromkeys(name.parts[0] for name in below if name.parts[0] not in classes))
    read = _class_reader(unsaid, class_index)
    if labels is None and unsaid and not any(_may_be_class(name, read) for name in unsaid):
        tell(
            f"{folder}: no class of the model is called as its folders are ({_first(unsaid)}), so the images have no "
            "labels; --annotations FILE.json says what folders stand for"
        )
        return [_example(path, folder, None) for path in found]
    of_folders = classes | {name: _folder_class(name, read, labels) for name in unsaid}
    examples = []
    for path, name in zip(found, names, strict=True):
        label = classes.get(name.as_posix())
        if label is None and len(name.parts) > 1:
            label = of_folders[name.parts[0]]
        examples.append(_example(path, folder, label))
    return examples


def _check_labels(labels: Path, given: Collection[str], names: Iterable[str]) -> None:
    if given and not any(name in given for name in names):
        raise DatasetError(
            f"--annotations {labels}: names none of the images; accepted are paths relative to the folder, and "
            f"{next(iter(given))!r} is none"
        )


def _check_there(examples: Sequence[Example], path: Path) -> None:
    """Refuse a CSV none of whose files is there."""
    if examples and not any(example.path.exists() for example in examples):
        raise DatasetError(
            f"{path}: none of its {len(examples)} files is there, such as {examples[0].path}; accepted are paths "
            f"relative to the CSV, or to a folder {path.stem!r} beside it"
        )


def _check_twice(examples: Iterable[Example], source: str) -> None:
    seen: set[str] = set()
    for example in examples:
        if example.name in seen:
            raise DatasetError(f"{source}: the image {example.name!r} comes twice")
        seen.add(example.name)


def _class_reader(texts: Iterable[str], class_index: Callable[[int | str], int]) -> Callable[[str], int]:
    """Choose how to read the classes of a dataset: as labels if all of them are labels, else by the rule of targets.

    So folders named 1, 10, 11, 2 are the classes with these labels, whatever their indices.
    """

    def as_label(text: str) -> int:
        return class_index(f"label:{text}")

    try:
        for text in set(texts):
            as_label(text)
    except TargetError:
        return class_index
    return as_label


def _example(path: Path, folder: Path, label: int | None) -> Example:
    # A file name need not be text; the results are, and escape it as those of `ortcam explain` do.
    return Example(as_text(path.relative_to(folder).as_posix()), path, label)


def _may_be_class(name: str, read: Callable[[str], int]) -> bool:
    """Whether a folder is named after a class, or by a number, which is meant to be one."""
    try:
        read(name)
    except TargetError:
        return bool(_INDEX.fullmatch(name))
    return True


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _folder_class(name: str, read: Callable[[str], int], labels: Path | None) -> int:
    try:
        return read(name)
    except TargetError as error:
        hint = f"add it to {labels}" if labels else "--annotations FILE.json says what folders stand for"
        raise TargetError(f"folder {name!r}: {error}; {hint}") from None


def _read_json(path: Path, class_index: Callable[[int | str], int]) -> dict[str, int]:
    _check_list(path)
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, Mapping) or not all(isinstance(value, (int, str)) for value in content.values()):
        raise DatasetError(f"{path}: accepted is an object from file names or class folders to classes")
    read = _class_reader((value for value in content.values() if isinstance(value, str)), class_index)
    return {name: read(value) if isinstance(value, str) else class_index(value) for name, value in content.items()}


def _check_list(path: Path) -> None:
    """Refuse a pipe, a device, or a file too large for a list of images, before it is opened.

    Raises:
        DatasetError: it is one of these, or cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise DatasetError(f"{path}: no regular file; accepted is a CSV, or a JSON object")
    if status.st_size > _MOST_OF_A_LIST:
        raise DatasetError(f"{path}: has {status.st_size} bytes; accepted are {_MOST_OF_A_LIST} for a list of images")


def _csv_folder(path: Path) -> Path:
    """Where the files of a CSV lie: in the folder of its name, if there is one, else beside it."""
    folder = path.with_suffix("")
    return folder if folder.is_dir() else path.parent


def _from_csv(path: Path, folder: Path, class_index: Callable[[int | str], int]) -> Iterator[Example]:
    _check_list(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = CsvRows(file)
            if not set(_FILE_COLUMNS) & set(reader.columns):
                has = f"has the columns {', '.join(reader.columns)}" if any(reader.columns) else "is empty"
                raise DatasetError(f"{path}: its first line {has}; accepted is a header with a column 'file'")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as CSV: {error}") from None
    read = _class_reader((text for _, row in rows if (text := _first_filled(row, _CLASS_COLUMNS))), class_index)
    for line, row in rows:
        try:
            yield _from_row(row, folder, class_index, read)
        except (DatasetError, TargetError) as error:
            raise type(error)(f"{path}, line {line}: {error}") from None


def _from_row(
    row: Mapping[str, str | None], folder: Path, class_index: Callable[[int | str], int], read: Callable[[str], int]
) -> Example:
    name = _first_filled(row, _FILE_COLUMNS)
    if name is None:
        raise DatasetError("names no file")
    given, index = _first_filled(row, _CLASS_COLUMNS), _first_filled(row, ("class_index",))
    if index is not None and _INDEX.fullmatch(index):
        label: int | None = class_index(int(index))
    else:
        label = None if given is None else read(given)
    boxes = tuple(_box(text) for text in (_first_filled(row, _BOX_COLUMNS) or "").split(";") if text.strip())
    size = _size(row.get("width"), row.get("height"))
    path = folder / name
    if not path.exists() and (folder.parent / name).exists():  # the folder's name is part of the file's
        path = folder.parent / name
    return Example(Path(name).as_posix(), path, label, boxes, size)


def _first_filled(row: Mapping[str, str | None], columns: Sequence[str]) -> str | None:
    return next((text.strip() for column in columns if (text := row.get(column)) and text.strip()), None)


def _box(text: str) -> Box:
    try:
        x0, y0, x1, y1 = (_PLACE.parse(number) for number in text.split())
    except ValueError:
        accepted = f"four numbers {_PLACE.bounds}, x0 y0 x1 y1"
        raise DatasetError(f"box {shown(text.strip())}: accepted are {accepted}") from None
    if not (x0 < x1 and y0 < y1):
        raise DatasetError(f"box {shown(text.strip())}: x0 is below x1 and y0 below y1 in x0 y0 x1 y1")
    return x0, y0, x1, y1


def _size(width: str | None, height: str | None) -> tuple[int, int] | None:
    if not width or not height:
        return None
    try:
        return int(_SIZE.parse(width)), int(_SIZE.parse(height))
    except ValueError:
        accepted = f"whole numbers of pixels {_SIZE.bounds}"
        raise DatasetError(f"width {shown(width)}, height {shown(height)}: accepted are {accepted}") from None
