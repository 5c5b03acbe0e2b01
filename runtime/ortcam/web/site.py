"""The built page and what lies beside it: every address of it, and what is there."""

import dataclasses
import hashlib
import io
import json
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from ortcam._version import __version__
from ortcam.bundle import MANIFEST_NAME, Bundle
from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.errors import BundleError

__all__ = ["PLAIN_TEXT", "SITE", "Resource", "Site", "built_page", "page_folder", "samples_of", "site_of"]

SITE: Final = "site.json"
_INDEX: Final = "index.html"
_HEADERS: Final = "_headers"
_SAMPLES: Final = "samples/"
# What the build names after its content, so that it never changes.
_HASHED: Final = "assets/"
_COMPRESSED: Final = ".gz"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
PLAIN_TEXT: Final = _TYPES[".txt"]


@dataclasses.dataclass(frozen=True)
class Resource:
    """What the server answers at one address.

    Attributes:
        content: a file, or the bytes themselves.
        media_type: for the header `Content-Type`.
        compressed: whether the file is compressed by gzip and its reader is to see what is inside.
        lasting: whether the content never changes, so that a browser need not ask again.
    """

    content: Path | bytes
    media_type: str
    compressed: bool = False
    lasting: bool = False

    @property
    def caching(self) -> str:
        """For the header `Cache-Control`."""
        return "public, max-age=31536000, immutable" if self.lasting else "no-cache"

    def open(self) -> tuple[BinaryIO, int, str]:
        """The content to read, its size in bytes, and a tag that changes with it.

        Raises:
            OSError: the file is gone.
        """
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content), len(self.content), hashlib.sha256(self.content).hexdigest()
        file = self.content.open("rb")
        found = os.fstat(file.fileno())
        return file, found.st_size, f"{found.st_mtime_ns:x}-{found.st_size:x}"


@dataclasses.dataclass(frozen=True)
class Site:
    """All that the server answers.

    Attributes:
        resources: path of an address, without the first slash -> what is there.
        headers: sent with every answer.
    """

    resources: Mapping[str, Resource]
    headers: Mapping[str, str]


def page_folder() -> Path:
    """The built page, which comes with ortcam.

    Raises:
        BundleError: this installation lacks it.
    """
    folder = Path(__file__).parent / "page"
    if not (folder / _INDEX).is_file():
        raise BundleError(f"the page is not in this installation ({folder}); in a checkout, `make page` builds it")
    return folder


def built_page() -> Site:
    """The page and its samples, without any bundle and without `site.json`, which lists them.

    Raises:
        BundleError: this installation lacks the page.
    """
    folder = page_folder()
    resources = {}
    for path in sorted(folder.rglob("*")):
        if (resource := _of_the_page(path, folder)) is not None:
            resources[_address(path, folder)] = resource
    resources |= {place: Resource(path, _type(path.name)) for place, path in _drawings().items()}
    resources[""] = resources[_INDEX]
    return Site(resources, _headers(folder))


def samples_of(bundle: Bundle, page: Site) -> list[str]:
    """Addresses of the images to try with a bundle: drawings for the shipped one, photographs for others."""
    if bundle.path == bundle_path().resolve():
        return list(_drawings())
    return [address for address in page.resources if address.startswith(_SAMPLES) and address.endswith(".jpg")]


def site_of(bundles: Sequence[tuple[str, Bundle]]) -> Site:
    """The page with bundles for it to offer, the first one at once.

    Args:
        bundles: each with the name that the page shows.

    Raises:
        BundleError: this installation lacks the page, or a bundle's graphs have fixed shapes.
    """
    page = built_page()
    for name, bundle in bundles:
        if (static := bundle.manifest.graphs.static_batch) is not None:
            raise BundleError(
                f"{name}: its graphs are fixed at {static} rows per run, and the page runs other sizes, too; accepted "
                "is a bundle that was exported without --static-batch"
            )
    resources = dict(page.resources)
    offered = []
    for number, (name, bundle) in enumerate(bundles):
        address = f"bundles/{number}/{bundle.path.name}"
        for file in (MANIFEST_NAME, *bundle.manifest.files):
            resources[f"{address}/{file}"] = Resource(bundle.path / file, _type(file))
        offered.append(
            {"name": name, "address": f"{urllib.parse.quote(address)}/", "samples": samples_of(bundle, page)}
        )
    index = {"ortcam": __version__, "bundles": offered}
    resources[SITE] = Resource(json.dumps(index).encode(), _type(SITE))
    return Site(resources, page.headers)


def _drawings() -> dict[str, Path]:
    return {f"{_SAMPLES}shapes/{path.name}": path for path in sample_images()}


def _address(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix().removesuffix(_COMPRESSED)


def _of_the_page(path: Path, folder: Path) -> Resource | None:
    """A file of the page; None for what is none, or not for readers of the page."""
    address = _address(path, folder)
    if not path.is_file() or path.suffix == ".md" or address in (_HEADERS, SITE):
        return None
    lasting = address.startswith(_HASHED)
    return Resource(path, _type(address), compressed=path.suffix == _COMPRESSED, lasting=lasting)


def _type(name: str) -> str:
    return _TYPES.get(Path(name).suffix, "application/octet-stream")


def _headers(folder: Path) -> dict[str, str]:
    """The headers that the build says the page needs: a line each, below a line with the addresses."""
    lines = (folder / _HEADERS).read_text("utf-8").splitlines()
    pairs = (line.strip().partition(": ") for line in lines if line.startswith(" "))
    return {name: value for name, _, value in pairs}
