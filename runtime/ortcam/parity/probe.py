"""The probe of a bundle: the images that parity is measured on, what the model gave for them, and how they are read."""

import math
import re
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Bundle, Probe
from ortcam.engine.features import check_finite
from ortcam.errors import BundleError, NotFiniteError
from ortcam.images.preprocessing import Preprocessing

__all__ = ["probe_input", "read_array", "read_probe"]

# Numpy's format, versions 1 to 3: the length of what follows it in 2 or 4 bytes, and a dictionary as Python writes it.
_ROUNDING: Final = 1e-4  # of logits in float32, relative: as much as parity may differ
_NPY_START: Final = {1: 10, 2: 12, 3: 12}
_NPY_TYPES: Final = {"u1": "uint8", "f2": "float16", "f4": "float32", "f8": "float64", "O": "object"}
_NPY_HEADER: Final = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)"
    rb"\{'descr': '(?P<dtype>[<>|=]?[A-Za-z]\d{0,3})', 'fortran_order': (?P<columns>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,18}, ?){0,8}\d{0,18})\), \} {0,9999}\n",
    re.DOTALL,
)


class _NotFiniteProbeError(BundleError, NotFiniteError):
    """A probe with logits that are infinite or not numbers: the bundle is damaged, and a value is not finite."""


def probe_input(pictures: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Preprocess probe images, which need no resize: levels uint8 [N,H,W,C] -> float32 [N,C,H,W]."""
    return np.concatenate([preprocessing.of_levels(picture) for picture in pictures])


def read_probe(bundle: Bundle) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read the images on which parity was measured, uint8 [N,H,W,C], and the model's logits, float32 [N,outputs].

    Raises:
        BundleError: no probe, or files of another form.
    """
    manifest = bundle.manifest
    if manifest.probe is None:
        raise BundleError(
            f"{bundle.path}: no probe in this bundle (schema {bundle.schema}), so parity cannot be measured again; "
            "export it again"
        )
    probe: Probe = manifest.probe
    image = manifest.preprocessing
    shape = manifest.parity.inputs, image.height, image.width, image.channels
    pictures = read_array(bundle, probe.images, np.uint8, shape)
    logits = read_array(bundle, probe.logits, np.float32, (manifest.parity.inputs, manifest.outputs))
    try:
        check_finite("logits of the original model for the probe", logits)
    except NotFiniteError as error:
        raise _NotFiniteProbeError(f"{bundle.file(probe.logits)}: {error}") from None
    _check_cosines(bundle, logits)
    return pictures, logits


def _check_cosines(bundle: Bundle, logits: NDArray[np.float32]) -> None:
    """Refuse a logit scale and bias by which logits are no cosines.

    Raises:
        BundleError: they go beyond -1 or 1.
    """
    scale, bias = bundle.manifest.model.logit_scale, bundle.manifest.model.logit_bias
    if scale is None or bias is None:
        return
    least, most = float(logits.min()), float(logits.max())
    # The graph is float32: a scale of 0 or a cosine of 1 may come out a little beyond.
    spare = _ROUNDING * (scale + abs(bias))
    if least < bias - scale - spare or most > bias + scale + spare:
        raise BundleError(
            f"{bundle.path}: the logits of its probe go from {least:.6g} to {most:.6g}; cosines with a logit scale of "
            f"{scale:g} and a bias of {bias:g} give {bias - scale:g} to {bias + scale:g}"
        )


def read_array(bundle: Bundle, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    """Read an array in numpy's format. Its header is compared with the accepted ones and never evaluated."""
    path, data = bundle.file(name), bundle.content(name).data
    accepted = f"{np.dtype(dtype)} {list(shape)}"
    if data.startswith(b"PK"):
        raise BundleError(f"{path}: an archive; accepted is {accepted}")
    header = _NPY_HEADER.match(data)
    if header is None:
        raise BundleError(f"{path}: cannot be read as a .npy file of numbers; accepted is {accepted}")
    kind, shape_text = header["dtype"].decode(), header["shape"].decode()
    found = tuple(int(side) for side in shape_text.split(",") if side.strip())
    if kind != np.dtype(dtype).newbyteorder("<").str or found != shape or 0 in shape:
        raise BundleError(f"{path}: {_NPY_TYPES.get(kind[1:], kind)} {list(found)}; accepted is {accepted}")
    start = _NPY_START[data[6]] + int.from_bytes(data[8 : _NPY_START[data[6]]], "little")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if start < header.end() or len(data) - start != size:
        raise BundleError(
            f"{path}: cannot be read as a .npy file: {len(data) - start} bytes of numbers; accepted is {accepted}, "
            f"{size} bytes"
        )
    values = np.frombuffer(data, dtype, offset=start)
    return values.reshape(shape, order="F" if header["columns"] == b"True" else "C").copy()
