"""The folder of a saved explanation: reads its manifest, adds classes to it, and says what would be lost."""

import contextlib
import io
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OutputError
from ortcam.images.inputs import MANIFEST
from ortcam.images.limits import WHITE
from ortcam.support.files import alone_in, make_folder, write_together
from ortcam.support.strict_json import encode_json
from ortcam.support.unfinished import clear

__all__ = [
    "MANIFEST",
    "PREVIEW",
    "OccupiedError",
    "identity",
    "image_sha256",
    "lost",
    "npy",
    "read_manifest",
    "save",
    "stem",
]

PREVIEW: Final = "image.jpg"  # the photograph, small

_LARGEST: Final = 1 << 26  # bytes of a manifest
_LONGEST: Final = 60  # characters of a value in a message


class OccupiedError(OutputError):
    """A folder holds results that would be lost."""


def save(folder: Path, summary: Mapping[str, Any], contents: Mapping[str, bytes], *, force: bool) -> None:
    """Write the files of an explanation and then its manifest, beside the other classes of the same explanation.

    Rules:

    1. Other classes stay in the manifest if they were explained from the same image, with the same bundle, method and
       settings. How they are drawn (`rendering`) is one of the settings.
    2. An explanation of something else is not overwritten, unless by `force`: then it is replaced as a whole.
    3. Files that do not belong to an explanation are left alone; so is an `image.jpg` that no manifest lists.
    4. A manifest exists only while all files that it lists exist. If saving fails, the former one stays.
    5. A new explanation takes the place of the old one in one step: the folders are exchanged. Windows and some network
       file systems cannot do that, nor can it be done where the folder holds other files. Then there is no manifest for
       some milliseconds, and readers try again. Other runs that save there wait.
    6. What is saved is on the disk.

    Args:
        folder: made if it does not exist.
        summary: the manifest without `files`.
        contents: of the files, by name.
        force: replace an explanation of something else, or a manifest that ortcam did not write.

    Raises:
        OccupiedError: something would be lost.
        OutputError: the folder cannot be made or written to.
        NotFiniteError: a number in the summary is infinite or none.
    """
    _encoded(summary)  # what is no JSON is found before a folder is made
    try:
        make_folder(folder)
        clear(folder.parent)  # where a folder lies that was to be exchanged
        with alone_in(folder):
            old = None if force and not _is_ours(folder) else read_manifest(folder)
            if os.path.lexists(folder / PREVIEW) and PREVIEW not in _listed(old):
                contents = {name: content for name, content in contents.items() if name != PREVIEW}
            gone: list[str] = []
            if old is not None and (differences := _differences(identity(old), identity(summary))):
                if not force:
                    raise OccupiedError(_in_words(folder, old, differences))
                gone = [MANIFEST, *(name for name in _own_files(folder, old) if name not in contents)]
                old = None
            manifest = dict(summary) if old is None else _merged(folder, old, summary)
            manifest["files"] = sorted({*contents, *(() if old is None else _files_of(manifest))})
            write_together(folder, {**contents, MANIFEST: _encoded(manifest)}, instead_of=gone)
    except OSError as error:
        raise OutputError(f"{folder}: cannot write the explanation here: {error.strerror or error}") from error
    except ValueError as error:  # a null character
        raise OutputError(f"{str(folder)!r}: cannot write the explanation here: {error}") from None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of an explanation; None if there is none.

    Raises:
        OccupiedError: the file is not the manifest of an explanation.
        OSError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return None
        found = None
    if found is not None and stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            manifest = dict(json.loads(path.read_bytes()))
            identity(manifest)
            if all(isinstance(target["index"], int) for target in manifest["targets"]):
                return manifest
    raise OccupiedError(f"{path}: is no manifest of an explanation and is left alone; --force (force=True) replaces it")


def identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the files of an explanation depend on apart from the class, as JSON types.

    Two explanations with the same identity may be saved in one folder.
    """
    rendering = manifest["rendering"]
    return _as_json(
        {
            "image": image_sha256(manifest["image"]),
            "white": manifest["image"].get("white") or WHITE,
            "bundle": manifest["bundle"]["sha256"],
            "method": manifest["method"],
            "precision": manifest["stats"]["precision"],
            **{f"option {name}": value for name, value in manifest["options"].items()},
            **(manifest["limits"] or {}),
            **{name: manifest[name] for name in ("score", "score_arrays") if name in manifest},
            "colormap": rendering["colormap"],
            "alpha": rendering["alpha"],
            "blend": rendering.get("blend", "flat"),  # as all overlays were before there was a choice
        }
    )


def stem(target: int) -> str:
    """How the files of a map are called: `class-C` of a class, `score` of a score (-1)."""
    return "score" if target < 0 else f"class-{target}"


def npy(array: NDArray[np.float32]) -> bytes:
    """An array as the content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def image_sha256(record: Mapping[str, Any]) -> str | None:
    """The hash of an image: of its file, of its pixels if it was given as an array, or of a preprocessed input."""
    found = record.get("sha256") or record.get("pixels_sha256") or record.get("input_sha256")
    return None if found is None else str(found)


def lost(folder: Path, wanted: Mapping[str, Any]) -> str | None:
    """Say in a sentence what would be lost by saving to a folder; None if nothing would.

    Args:
        folder: of an explanation.
        wanted: the manifest to be saved, as far as it is known before the work.
    """
    try:
        old = read_manifest(folder)
    except OccupiedError as error:
        return str(error)
    except OSError as error:
        return f"{folder}: cannot be looked at: {error.strerror or error}"
    if old is None:
        return None
    differences = _differences(identity(old), identity(wanted))
    return _in_words(folder, old, differences) if differences else None


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(values, default=_as_number)))


def _as_number(value: Any) -> object:
    """A number of numpy as one of Python, for JSON."""
    return value.item()


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if "image" in keys:
        return ["of another image"]
    return [f"explained with {key} {_short(old.get(key))}, now {_short(new.get(key))}" for key in keys]


def _short(value: object) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _in_words(folder: Path, old: Mapping[str, Any], differences: Sequence[str]) -> str:
    indices = [target["index"] for target in old["targets"]]
    what = "a score" if indices == [-1] else f"class {', '.join(map(str, indices))}"
    return (
        f"{folder}: holds {what} {'; '.join(differences)}; --force (force=True) replaces what is there, and "
        "another folder keeps both"
    )


def _is_ours(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except OccupiedError:
        return False
    return True


def _own_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The files of a manifest's classes that are there."""
    names = [*_files_of(manifest), *([PREVIEW] if PREVIEW in _listed(manifest) else [])]
    return [name for name in names if (folder / name).is_file() or (folder / name).is_symlink()]


def _listed(manifest: Mapping[str, Any] | None) -> list[Any]:
    """What a manifest says that it has written."""
    listed = None if manifest is None else manifest.get("files")
    return listed if isinstance(listed, list) else []


def _files_of(manifest: Mapping[str, Any]) -> list[str]:
    return [
        name
        for target in manifest["targets"]
        for name in (f"{stem(target['index'])}{end}" for end in (".npy", "-heatmap.png", "-overlay.png"))
    ]


def _merged(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new manifest, and in it the classes of the old one whose files are all there.

    What was otherwise when a class of the old one was explained (time, passes, versions) is its `run`.
    """
    own = {target["index"] for target in new["targets"]}
    before = {key: value for key, value in old.items() if key not in ("targets", "files")}
    now = _as_json({key: value for key, value in new.items() if key != "targets"})
    kept = []
    for target in old["targets"]:
        if target["index"] in own or not all((folder / name).is_file() for name in _files_of({"targets": [target]})):
            continue
        run = before | target.get("run", {})
        kept.append(target | {"run": {key: value for key, value in run.items() if now.get(key) != value}})
    return {**new, "targets": [*new["targets"], *kept]}


def _encoded(manifest: Mapping[str, Any]) -> bytes:
    return encode_json(manifest, default=_as_number).encode() + b"\n"
