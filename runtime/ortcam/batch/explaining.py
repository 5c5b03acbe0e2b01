"""`RowMaker`: from an item and the bytes of its image to its rows. Both engines use it, in each process that scores."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ortcam.batch.items import Item
from ortcam.batch.output.rows import Row
from ortcam.batch.settings import BatchSettings
from ortcam.engine import SessionOptions
from ortcam.engine.batching import Progress
from ortcam.engine.memory import MemoryLimit, ResetPeaks
from ortcam.engine.providers import Provider, resolve_providers
from ortcam.errors import (
    BundleError,
    ImageError,
    MemoryLimitError,
    NotFiniteError,
    OrtcamError,
    OutOfMemoryError,
    TargetError,
)
from ortcam.explainer import load_with
from ortcam.images.encoding import encode_jpeg
from ortcam.images.photograph import Photograph
from ortcam.images.rendering import shrunk
from ortcam.results.explanation import Explanation
from ortcam.results.low_resolution import low_resolution
from ortcam.support.terminal import as_text

__all__ = ["IMAGES_BYTES", "OF_ONE_IMAGE", "OVERLAY_SIDE", "RowMaker", "memory_limit"]

# What is wrong with one image and no reason to stop; any other error is wrong with all images.
OF_ONE_IMAGE: Final = (ImageError, MemoryLimitError, NotFiniteError, OutOfMemoryError, TargetError)
OVERLAY_SIDE: Final = 1024  # pixels of the longer side of an overlay; a smaller photograph keeps its size
IMAGES_BYTES: Final = 16 << 20  # of images that wait in a process with a limit of memory
_RESERVED: Final = 2 * IMAGES_BYTES  # for them, and for the one that is explained


class RowMaker:
    """Makes the rows of one image after the other. One thread may read while another explains.

    Example:
        >>> maker = RowMaker(settings, threads=2)  # doctest: +SKIP
        >>> maker.rows(item, maker.read(content))  # doctest: +SKIP
    """

    def __init__(
        self,
        settings: BatchSettings,
        *,
        threads: int | None = None,
        device: int | None = None,
        goes_on: Callable[[], None] | None = None,
        searching: bool = False,
    ) -> None:
        """Open the bundle; sessions open with the first image.

        Args:
            settings: what the rows depend on.
            threads: inside an operator; None: the physical cores that this process may use.
            device: number of the GPU; None leaves it to the providers' options.
            goes_on: called now and then while an image is explained: after every run of a graph.
            searching: whether batches grow to what fits under `memory_limit`; else all runs have the settings' size.

        Raises:
            BundleError: the bundle is another one than the settings say.
            OrtcamError: as `ortcam.load`.
        """
        self.settings = settings
        self._progress: Progress | None = None if goes_on is None else lambda *_: goes_on()
        options = SessionOptions(
            resolve_providers(_on_device(settings.providers, device)),
            threads,
            strict_providers=settings.strict_providers,
            memory_limit=memory_limit(settings.memory_limit, searching=searching),
        )
        reading = {"max_pixels": settings.max_pixels, "white": settings.white, "strict": settings.strict}
        self._explainer = load_with(options, settings.bundle, reading, precision=settings.precision)
        found = self._explainer.bundle.sha256
        if found != settings.bundle_sha256:
            raise BundleError(
                f"{settings.bundle}: the bundle has changed since the batch began: the SHA-256 of its bundle.json is "
                f"{found[:12]}..., and it was {settings.bundle_sha256[:12]}..."
            )
        self._request = settings.request().for_bundle(self._explainer.bundle.manifest)

    def read(self, content: bytes) -> Photograph:
        """Decode and preprocess an image.

        Raises:
            ImageError: it is no image, truncated or too large.
        """
        return self._explainer.read(content)

    def drawn(self) -> Photograph:
        """An image of noise, for measurements where there is no other."""
        preprocessing = self._explainer.bundle.manifest.preprocessing
        if preprocessing.needs_samples:
            shape = preprocessing.channels, preprocessing.height, preprocessing.width
            return self._explainer.read(preprocessed=np.random.default_rng(0).standard_normal(shape, np.float32))
        noise = np.random.default_rng(0).integers(0, 256, (preprocessing.height, preprocessing.width, 3), np.uint8)
        return self._explainer.read(noise)

    def explain(self, item: Item, photograph: Photograph) -> Explanation:
        """Explain an image.

        Raises:
            OrtcamError: as `Explainer.explain`; `OF_ONE_IMAGE` has what is wrong with this image alone.
        """
        request = self._request
        if item.targets is not None:
            request = self.settings.request(item.targets).for_bundle(self._explainer.bundle.manifest)
        return self._explainer.explain_request(request, photograph, progress=self._progress)

    def rows(self, item: Item, photograph: Photograph) -> list[Row]:
        """Explain an image: one row per class, in the order asked for.

        Raises:
            OrtcamError: as `explain`.
        """
        return self._rows(item, self.explain(item, photograph))

    def rows_or_failure(self, item: Item, read: Callable[[], Photograph]) -> list[Row]:
        """Explain an image, or say in a row of its own what is wrong with it.

        Args:
            item: to be explained.
            read: returns what `read` made of it, or raises what went wrong on the way.

        Raises:
            OrtcamError: what is wrong with all images.
        """
        try:
            return self.rows(item, read())
        except OF_ONE_IMAGE as error:
            return [self.failed(item, error)]
        except MemoryError:
            return [self.failed(item, OutOfMemoryError("there is not enough memory for this image"))]

    def failed(self, item: Item, error: OrtcamError) -> Row:
        """The row of an image that could not be explained."""
        return Row(item.id, item.path, error=as_text(str(error)))

    def close(self) -> None:
        """Give memory back."""
        self._explainer.close()

    def _rows(self, item: Item, explanation: Explanation) -> list[Row]:
        low, settings = low_resolution(explanation).astype(np.float16), self.settings
        stats, overlays = explanation.stats, settings.overlays == "jpeg"
        photograph = shrunk(explanation.image, OVERLAY_SIDE) if overlays else None
        rows = []
        for place, target in enumerate(explanation.targets):
            number, overlay = float(explanation.probabilities[place]), None
            if photograph is not None:
                overlay = encode_jpeg(explanation.drawn_on(photograph, place, settings.rendering))
            rows.append(
                Row(
                    id=item.id,
                    path=item.path,
                    target=target,
                    label=explanation.labels[place],
                    probability=number if settings.are_probabilities else None,
                    value=None if settings.are_probabilities else number,
                    map=low[place],
                    full_map=explanation.maps[place].astype(np.float16) if settings.maps == "full" else None,
                    overlay=overlay,
                    estimated_error=None if stats.estimated_error is None else float(stats.estimated_error[place]),
                    passes=stats.passes,
                    seconds=stats.seconds,
                )
            )
        return rows


def memory_limit(megabytes: int | None, *, searching: bool) -> MemoryLimit | None:
    """The limit of a process that scores; None where there is none. An image that passes it fails, and others go on.

    Args:
        megabytes: of the process.
        searching: whether precision and batch size are being chosen: then there has to be room for images that wait.
    """
    if megabytes is None:
        return None
    return MemoryLimit(megabytes, ResetPeaks(), reserved=_RESERVED if searching else 0, steady=not searching)


def _on_device(providers: tuple[Provider, ...] | None, device: int | None) -> tuple[Provider, ...] | None:
    """The providers, with the first one on a device of its own."""
    if device is None:
        return providers
    first, *others = providers or ("cuda", "cpu")
    name, options = (first, {}) if isinstance(first, str) else first
    given: dict[str, Any] = {"device_id": device} | dict(options)
    return ((name, given), *others)
