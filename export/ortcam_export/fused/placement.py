"""Put a fused file in its place: in one step, over what is there, with its weights beside it."""

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import onnx_ir as ir

from ortcam.bundle import Bundle, file_sha256
from ortcam.support.files import alone_in, move_folder, sync
from ortcam.support.unfinished import clear, settle_later
from ortcam_export.errors import ExportError
from ortcam_export.fused.triton import CONFIGURATION, MODEL_FILE, check_name, plain_name
from ortcam_export.ort_format import SUFFIX

__all__ = ["EXTERNAL_SUFFIX", "GRACE", "Place", "choose_place", "put_in_place"]

EXTERNAL_SUFFIX: Final = ".data"
# Seconds for whoever has just opened a model to open its weights, before these are removed.
GRACE = 1.0

_HEX: Final = 8  # digits of a hash, in the name of weights beside others


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the file goes: a file, or a folder of a Triton repository with the file in it.

    Attributes:
        whole: what is put there: the file, or the folder.
        file: the model's name, in the folder of a repository its path.
        external: whether the weights lie beside the model.
        repository: whether it is a repository's.
        ort: whether it is in ORT format.
    """

    whole: Path
    file: str
    external: bool
    repository: bool
    ort: bool = False

    def folder_made(self, own: Path) -> Path:
        """The folder in a workspace where what goes here is made."""
        return own / "made" if self.repository else own

    @property
    def model(self) -> Path:
        """Where the model goes."""
        return self.whole / self.file if self.repository else self.whole

    @property
    def weights(self) -> Path | None:
        """Where the weights go, unless others are there."""
        return self.plain_weights if self.external else None

    @property
    def plain_weights(self) -> Path:
        """The name of its weights, where there are any beside it."""
        return self.model.with_name(self.model.name + EXTERNAL_SUFFIX)


def choose_place(
    bundle: Bundle,
    method: str,
    output: str | os.PathLike[str] | None,
    triton: str | os.PathLike[str] | None,
    name: str | None,
    *,
    external: bool,
    ort: bool,
    force: bool,
) -> Place:
    """Choose where the file goes, and check that it can."""
    if ort and (external or triton is not None):
        other = "external" if external else f"triton={os.fspath(triton or '')}"
        raise ExportError(f"ort with {other}: a file in ORT format has its weights inside, and Triton takes none")
    if output is None and triton is not None:
        if name is None:
            name = plain_name(f"{bundle.path.resolve().stem}-{method.replace('+', 'p')}")
        place = Place(Path(triton) / check_name(name), MODEL_FILE, external, repository=True)
    elif output is not None and triton is None and name is None:
        path = Path(output)
        suffix = SUFFIX if ort else ".onnx"
        if path.suffix != suffix:
            raise ExportError(f"{path}: accepted is the name of a file that ends in {suffix}")
        place = Place(path, path.name, external, repository=False, ort=ort)
    else:
        raise ExportError("accepted is an output file, or the folder of a Triton repository and, with it, a name")
    folder = place.whole.parent
    if folder.resolve() == bundle.path.resolve():
        raise ExportError(f"{place.whole}: lies in the bundle, whose files are its own; name another place")
    if not folder.is_dir():
        raise ExportError(f"{place.whole}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise ExportError(f"{place.whole}: the folder {folder} cannot be written to")
    clear(folder, former=place.whole.name)
    _check_free(place, force=force)
    return place


def _check_free(place: Place, *, force: bool) -> None:
    """Refuse to replace what is there, or what is no fused model.

    Raises:
        ExportError: something is there.
    """
    beside = None if place.repository else place.weights
    for path in (place.whole, *(() if beside is None else (beside,))):
        if not (path.exists() or path.is_symlink()):
            continue
        ours = _is_ours(path) if place.repository else path.is_file()
        if not ours or path.is_symlink():
            what = f"model with version 1 and {CONFIGURATION} alone" if place.repository else "file of its own"
            raise ExportError(f"{path}: exists and is not a {what}; it is left alone, name another")
        if not force:
            raise ExportError(f"{path}: is there already; --force replaces it")


def _is_ours(folder: Path) -> bool:
    """Whether a model of a repository is one that `fuse` wrote, and nothing beside it."""
    version = Path(MODEL_FILE).parent.name
    return folder.is_dir() and {path.name for path in folder.iterdir()} == {CONFIGURATION, version}


def put_in_place(made: Path, place: Place, own: Path, *, force: bool) -> Path | None:
    """Move a file, or a folder of a repository, out of its workspace, over what is there.

    Args:
        made: the model, in the workspace.
        place: where it goes.
        own: the workspace.
        force: whether what is there is replaced.

    Returns:
        Where the weights beside the model are, if there are any.

    Raises:
        ExportError: something is there.
        OSError: it cannot be moved; what was there is left as it is.
    """
    grace = 0.0
    with alone_in(place.whole.parent):
        _check_free(place, force=force)
        if place.repository:
            move_folder(place.folder_made(own), place.whole, own)
            weights = place.weights
        else:
            weights, has_readers = _put(made, place)
            grace = GRACE if has_readers else 0.0
    time.sleep(grace)
    return weights


def _put(made: Path, place: Place) -> tuple[Path | None, bool]:
    """Move a model out of its workspace, over what is there.

    Whoever opens the model finds its weights and never those of another. Where the weights of the model that is there
    have the name and not the content, the new ones get a name of their own. The weights go first, and the model
    replaces the old one in one step. Old weights go at the end of the workspace.

    Returns:
        Where the weights are, and whether somebody may have opened the old model and be about to open its weights.

    Raises:
        OSError: it cannot be moved; what was there is left as it is.
    """
    own, folder = made.parent, place.whole.parent
    written = None if place.weights is None else own / place.weights.name
    candidates = _weights_beside(place.whole)
    used = _weights_used(place.whole) if candidates else set()
    kept = None if written is None else _same(written, [path for path in candidates if path.name in used])
    weights = kept or place.weights
    if written is not None and weights is not None and kept is None and os.path.lexists(weights):
        weights = folder / f"{place.file}.{file_sha256(written)[:_HEX]}{EXTERNAL_SUFFIX}"
    if written is not None and weights is not None and weights.name != written.name:
        written = written.rename(own / weights.name)
        _point_at(made, weights.name)
    # Of no use any more: what the old model used, what killed runs left, and under the plain name what was forced away.
    stale = [path for path in candidates if path != weights and (path.name in used or _is_left(path, place))]
    sync(made)
    new = [] if written is None or kept is not None else [written]
    settle_later(own, made.name, new=new, old=stale)
    for path in new:
        sync(path)
        path.replace(folder / path.name)
    sync(folder)
    made.replace(place.whole)
    sync(folder)
    return weights, any(path.name in used for path in stale)


def _weights_beside(model: Path) -> list[Path]:
    """The files beside a model that have the names of its weights: `NAME.onnx.data` and `NAME.onnx.HEX.data`."""
    named = re.compile(rf"{re.escape(model.name)}(\.[0-9a-f]{{{_HEX}}})?{re.escape(EXTERNAL_SUFFIX)}")
    found = (path for path in model.parent.iterdir() if named.fullmatch(path.name))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _is_left(path: Path, place: Place) -> bool:
    """Whether weights that the model there does not use are those of a run before, and not somebody's own file."""
    if path == place.plain_weights:
        return place.weights is not None
    try:
        return path.name == f"{place.file}.{file_sha256(path)[:_HEX]}{EXTERNAL_SUFFIX}"
    except FileNotFoundError:  # another run has just removed it
        return False


def _weights_used(model: Path) -> set[str]:
    """The names of the files that hold the weights of a model. None if it is no model."""
    try:
        graphs = list(ir.load(model).graphs())
    except Exception:  # noqa: BLE001 - of no file, of no model: of many kinds
        return set()
    tensors = (value.const_value for graph in graphs for value in graph.initializers.values())
    return {str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}


def _same(path: Path, others: Sequence[Path]) -> Path | None:
    """The first of the other files that has the same content."""
    alike = [other for other in others if other.stat().st_size == path.stat().st_size]
    digest = file_sha256(path) if alike else None
    return next((other for other in alike if file_sha256(other) == digest), None)


def _point_at(path: Path, weights: str) -> None:
    """Rewrite a model so that it finds its weights under another name."""
    model = ir.load(path)
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.ExternalTensor(
                    weights,
                    tensor.offset,
                    tensor.length,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=tensor.name,
                    base_dir=path.parent,
                )
    ir.save(model, path)
