"""What the TIFF files in `tests/data/bands` hold, which GDAL wrote: names, types, options and samples.

To write them again: `pip install rasterio`, then `python -m tests.runtime.images.formats.gdal_files`.
"""

import importlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FOLDER: Final = Path(__file__).parents[3] / "data" / "bands"
FILES: Final[dict[str, tuple[str, int, dict[str, Any]]]] = {
    "uint8-5-bands-bigtiff.tif": ("uint8", 5, {"bigtiff": "YES"}),
    "uint8-4-planes-packbits.tif": ("uint8", 4, {"compress": "packbits", "interleave": "band", "blockysize": 2}),
    "uint16-13-bands-lzw-2.tif": ("uint16", 13, {"compress": "lzw", "predictor": 2, "interleave": "pixel"}),
    "uint16-4-planes-lzw-2-tiles.tif": (
        "uint16",
        4,
        {"compress": "lzw", "predictor": 2, "interleave": "band", "tiled": True, "blockxsize": 16, "blockysize": 16},
    ),
    "uint16-2-bands-12-bits.tif": ("uint16", 2, {"nbits": 12, "interleave": "pixel"}),
    "int16-3-bands-packbits-big-endian.tif": (
        "int16",
        3,
        {"compress": "packbits", "endianness": "BIG", "interleave": "pixel"},
    ),
    "uint32-2-bands-lzw-2-big-endian.tif": (
        "uint32",
        2,
        {"compress": "lzw", "predictor": 2, "endianness": "BIG", "interleave": "pixel"},
    ),
    "int32-1-band-deflate-2.tif": ("int32", 1, {"compress": "deflate", "predictor": 2}),
    "float32-4-bands-lzw-3.tif": ("float32", 4, {"compress": "lzw", "predictor": 3, "interleave": "pixel"}),
    "float32-2-planes-deflate-3-big-endian.tif": (
        "float32",
        2,
        {"compress": "deflate", "predictor": 3, "interleave": "band", "endianness": "BIG"},
    ),
    "float64-3-bands-deflate-3-tiles.tif": (
        "float64",
        3,
        {
            "compress": "deflate",
            "predictor": 3,
            "interleave": "pixel",
            "tiled": True,
            "blockxsize": 16,
            "blockysize": 16,
        },
    ),
    "int16-1-band-nodata.tif": ("int16", 1, {"nodata": -99}),
    "uint16-3-bands-zstd.tif": ("uint16", 3, {"compress": "zstd", "interleave": "pixel"}),
}
HEIGHT, WIDTH = 9, 19


def values(name: str) -> NDArray[Any]:
    """The samples of a file: [9, 19, bands]."""
    dtype, bands, options = FILES[name]
    row, column, band = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(bands), indexing="ij")
    number = (row * 31 + column * 17 + band * 1009) * 7 % 4093
    if dtype == "uint8":
        return (number % 251).astype(np.uint8)
    if "float" in dtype:
        return ((number - 2000) / 7).astype(dtype)
    if "nodata" in options:
        number[0, :3] = -99
        return number.astype(dtype)
    return (number - 2000 if dtype == "int16" else number * 99_991 if "32" in dtype else number).astype(dtype)


def main() -> None:
    """Write all files."""
    rasterio = importlib.import_module("rasterio")
    for name, (dtype, bands, options) in FILES.items():
        profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": bands, "dtype": dtype, **options}
        with rasterio.open(FOLDER / name, "w", **profile) as file:
            file.write(values(name).transpose(2, 0, 1))


if __name__ == "__main__":
    main()
