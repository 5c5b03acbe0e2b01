"""`BatchSettings`: what the rows of a batch depend on, as it travels to every process that makes rows."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ortcam.engine.batching import BatchSize
from ortcam.engine.providers import Provider
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.rendering import Rendering
from ortcam.request import ExplainRequest

__all__ = ["MAPS", "OVERLAYS", "BatchSettings", "Maps", "Overlays"]

Maps = Literal["low", "full"]
Overlays = Literal["none", "jpeg"]
MAPS: Final[tuple[Maps, ...]] = ("low", "full")
OVERLAYS: Final[tuple[Overlays, ...]] = ("none", "jpeg")


@dataclass(frozen=True)
class BatchSettings:
    """Everything that the rows of a batch depend on, and how images are fetched. It can be pickled.

    Attributes:
        bundle: folder of the bundle.
        bundle_sha256: hash of its bundle.json, which identifies all of it.
        arguments: of `ExplainRequest.of`, as JSON types, without `batch_size`; a score with its arrays.
        asked: what the arguments stand for with this bundle: method, all its options, limits (`ExplainRequest.record`).
        map_shape: rows and columns of the maps at the resolution of the layer.
        batch_size: masked images per run, the same number for all images, so that equal images give equal bits; "auto"
            only until it is measured.
        precision: of the masked passes; None: the bundle's own.
        providers: as `ortcam.load` takes them; None: the best.
        strict_providers: as `ortcam.load` takes it.
        memory_limit: megabytes of each process that makes rows; None: as many as there are. Rows depend on it through
            `batch_size` and `precision` alone, which it decides before the first row.
        max_pixels: as `ortcam.load` takes it.
        white: as `ortcam.load` takes it.
        strict: as `ortcam.load` takes it.
        maps: "low": at the resolution of the layer; "full": those of the size of the model's input, too.
        overlays: "none", or "jpeg": the photograph with the map over it.
        rendering: of overlays.
        are_probabilities: whether the rows have probabilities; else they have values.
        storage_options: of fsspec, for INPUT and OUTPUT. They may hold a password: they are in no record.
    """

    bundle: Path
    bundle_sha256: str
    arguments: dict[str, Any]
    asked: dict[str, Any]
    map_shape: tuple[int, int]
    batch_size: BatchSize
    precision: str | None = None
    providers: tuple[Provider, ...] | None = None
    strict_providers: bool = False
    memory_limit: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    white: int | None = None
    strict: bool = False
    maps: Maps = "low"
    overlays: Overlays = "none"
    rendering: Rendering = field(default_factory=Rendering)
    are_probabilities: bool = True
    storage_options: dict[str, Any] = field(default_factory=dict, repr=False)

    def request(self, targets: tuple[int | str, ...] | None = None) -> ExplainRequest:
        """What is asked of an image.

        Args:
            targets: classes of this image alone; None: those of the batch.

        Raises:
            TargetError: targets that are none.
        """
        arguments = self.arguments | {"batch_size": self.batch_size}
        if targets is not None:
            arguments = arguments | {"target": targets, "top_k": 1}
        return ExplainRequest.of(**arguments)

    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for rows to be the same, as JSON. Rows of two fingerprints never share an OUTPUT.

        `asked` has the score and the hashes of its arrays, where there is one.
        """
        return {
            "bundle": self.bundle_sha256,
            **self.asked,
            "target": self.arguments.get("target"),
            "top_k": self.arguments.get("top_k", 1),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "max_pixels": self.max_pixels,
            "white": self.white,
            "strict": self.strict,
            "maps": self.maps,
            "map_shape": list(self.map_shape),
            "overlays": self.overlays
            if self.overlays == "none"
            else {"format": self.overlays} | self.rendering.record(),
        }
