"""`StoredExplanation`: an explanation made of rows of a batch. It fetches the photograph when it is drawn."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.batch.output.rows import map_shape
from ortcam.bundle import Bundle
from ortcam.errors import OutputError
from ortcam.images.photograph import Photograph, read_photograph
from ortcam.images.preprocessing import Preprocessing
from ortcam.request import ExplainRequest
from ortcam.results.explanation import Explanation, Stats
from ortcam.scoring.maps import finish

__all__ = ["Reading", "StoredExplanation", "recorded"]

_SHOWN: Final = 3  # classes in a representation
# Of `Stats`, what rows do not tell.
_UNKNOWN: Final = ("live_channels", "scored_channels", "energy_covered", "runs", "seconds_by_stage")


def recorded(bundle: Bundle, request: ExplainRequest) -> dict[str, Any]:
    """What `_batch.json` says under `explanation`, as JSON types: all that explanations need beside their rows.

    Args:
        bundle: that explains.
        request: with a method in place of "auto", as `ExplainRequest.for_bundle` returns it.
    """
    manifest, shape, score = bundle.manifest, map_shape(bundle.manifest, request), request.score
    cuts = [cut for cut in manifest.cuts.values() if (cut.height, cut.width) == shape]
    return {
        "title": request.settings.method.title,
        "chosen": request.chosen,
        "bundle": {"name": bundle.path.resolve().name, "sha256": bundle.sha256},
        "model": dataclasses.asdict(manifest.model),
        "cut": dataclasses.asdict(cuts[0]),
        "layers": [cut.module or cut.tensor for cut in cuts[:1]],
        "activation": manifest.activation,
        "preprocessing": dataclasses.asdict(manifest.preprocessing),
        **({} if score is None else {"score": score.text}),
        **({} if request.has_probabilities(manifest) else {"are_probabilities": False}),
    }


class Reading:
    """What all explanations of an output share: the settings they were made with, and how images are fetched."""

    def __init__(self, record: Mapping[str, Any], fetch: Callable[[str], bytes], name: str) -> None:
        """Take what `_batch.json` says.

        Args:
            record: its content.
            fetch: from the path of an image to its bytes.
            name: of the output, for messages.

        Raises:
            OutputError: the record lacks something.
        """
        try:
            own, fingerprint = record["explanation"], record["fingerprint"]
            self.preprocessing = Preprocessing(**own["preprocessing"])
            self.method, self.options = str(fingerprint["method"]), dict(fingerprint["options"])
            self.title, self.chosen = str(own["title"]), own["chosen"]
            self.score: str | None = own.get("score")
            self.are_probabilities = bool(own.get("are_probabilities", True))
            self.precision, self.batch_size = str(fingerprint["precision"]), int(fingerprint["batch_size"])
            self.providers = tuple(str(name) for name in record["providers"])
            self.channels = int(own["cut"]["channels"])
            self._image = {key: fingerprint[key] for key in ("max_pixels", "white", "strict")}
            self.provenance = {
                "limits": fingerprint["limits"],
                **{key: fingerprint[key] for key in ("score", "score_arrays") if key in fingerprint},
                **{key: own[key] for key in ("bundle", "model", "cut", "layers", "activation", "preprocessing")},
                "requested_providers": [],
                "threads": record.get("threads"),
                "versions": {key: record[key] for key in ("ortcam", "onnxruntime")},
            }
        except (KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"{name}/_batch.json: lacks what its explanations need to draw themselves ({error!r}); the rows can "
                "be read as Parquet"
            ) from None
        self._fetch = fetch

    @property
    def number(self) -> str:
        """The column of the number that belongs to a row's class or score."""
        return "probability" if self.are_probabilities else "value"

    def photograph(self, path: str) -> Photograph:
        """Fetch and decode the photograph of an image, as it was done when it was explained.

        Raises:
            ImageError: it is gone, or is no image any more.
        """
        content = self._fetch(path)
        found = read_photograph(content, self.preprocessing, **self._image)
        return dataclasses.replace(found, record={**found.record, "path": path})


class StoredExplanation(Explanation):
    """An explanation that was read back from an output.

    It has all that `Explanation` has. What the rows do not hold differs:

    1. `raw_maps` is the column `map`, float32 [K,h,w] in [0,1]. `maps` is the column `full_map`, or `map` upsampled:
       the map of `explain`, apart from where the sum before ReLU was negative beside a positive cell, and from
       rounding to float16.
    2. `weights` is [K,0] and `scored` [0]: weights are not stored. `stats` has the passes, the seconds and the
       estimated error. How many channels were live and scored is not known: there it has all the channels of the
       layer, and `summary` leaves such entries out.
    3. `image`, `provenance` and what is drawn need the photograph, which is fetched from `path` at the first use.

    Attributes:
        id: of the image.
        path: where the image lies.
        overlays: JPEG bytes per target; None where the batch stored none.
    """

    id: str
    path: str
    overlays: tuple[bytes | None, ...]

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        low: NDArray[np.float32],
        reading: Reading,
        full: NDArray[np.float32] | None = None,
    ) -> None:
        """Take the rows of one image.

        Args:
            rows: by column, in their order, without their maps; none has an error.
            low: float32 [K,h,w], the column `map`.
            reading: what all rows share.
            full: float32 [K,H,W], the column `full_map`; None if there is none.
        """
        first = rows[0]
        values = {
            "id": first["id"],
            "path": first["path"],
            "overlays": tuple((row.get("overlay") or {}).get("bytes") for row in rows),
            "method": reading.method,
            "title": reading.title,
            "options": dict(reading.options),
            "targets": tuple(row["target"] for row in rows),
            "labels": tuple(row["label"] for row in rows),
            "probabilities": np.array([row[reading.number] for row in rows], np.float32),
            "score": reading.score,
            "are_probabilities": reading.are_probabilities,
            "raw_maps": low,
            "weights": np.zeros((len(rows), 0), np.float32),
            "scored": np.zeros(0, np.bool_),
            "flat": ~low.any(axis=(1, 2)),
            "preprocessing": reading.preprocessing,
            "stats": _stats(rows, reading),
            "chosen": reading.chosen,
            "_reading": reading,
            **({} if full is None else {"maps": full}),
        }
        self.__dict__.update(values)

    def __repr__(self) -> str:
        form = ".1%" if self.are_probabilities else ".4g"
        shown = [f"{label!r} {p:{form}}" for label, p in zip(self.labels[:_SHOWN], self.probabilities, strict=False)]
        more = f", {len(self.labels) - _SHOWN} more" if len(self.labels) > _SHOWN else ""
        return f"<StoredExplanation {self.id!r}: {self.method} of {', '.join(shown)}{more}>"

    @cached_property
    def maps(self) -> NDArray[np.float32]:
        """Float32 [K,H,W] in [0,1] at the size of the model's input."""
        size = self.preprocessing.height, self.preprocessing.width
        return finish(self.raw_maps.astype(np.float64), *size)[0]

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """The upright photograph, uint8 RGB [H0,W0,3].

        Raises:
            ImageError: it cannot be fetched, or is no image any more.
        """
        return self._photograph.pixels

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Source of the image, bundle, model, cut and versions.

        Raises:
            ImageError: as `image`; the hash of the photograph belongs to it.
        """
        return {**self._reading.provenance, "image": self._photograph.record}

    def summary(self) -> dict[str, Any]:
        """As of `Explanation`, without the entries of `stats` that rows do not tell.

        Raises:
            ImageError: as `image`.
        """
        summary = super().summary()
        known = {key: value for key, value in summary["stats"].items() if key not in _UNKNOWN}
        return {**summary, "stats": known}

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the layer that the maps come from."""
        height, width = self.raw_maps.shape[1:]
        return height, width

    @cached_property
    def _photograph(self) -> Photograph:
        return self._reading.photograph(self.path)

    _reading: Reading


class _StoredStats(Stats):
    """What rows tell of `Stats`; they do not count channels."""

    def __repr__(self) -> str:
        return f"<Stats {self.passes_in_words}, {self.seconds:.2f} s, {self.providers[0]}>"


def _stats(rows: Sequence[Mapping[str, Any]], reading: Reading) -> Stats:
    first, errors = rows[0], [row["estimated_error"] for row in rows]
    return _StoredStats(
        providers=reading.providers,
        precision=reading.precision,
        batch_size=reading.batch_size,
        channels=reading.channels,
        live_channels=reading.channels,
        scored_channels=reading.channels,
        passes=first["passes"],
        runs=0,
        seconds=first["seconds"],
        seconds_by_stage={},
        estimated_error=None if None in errors else tuple(errors),
    )
