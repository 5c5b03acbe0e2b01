"""What measures: the model of an evaluation, opened in every precision, with the conventions of the protocol.

Each process that takes part has a bench of its own. A recipe says all that it needs beside the bundle, and travels to
other machines.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ortcam.bundle import Bundle, Manifest
from ortcam.engine import SessionOptions, resolve_providers
from ortcam.engine.batching import BatchSize
from ortcam.engine.memory import MemoryLimit, ResetPeaks
from ortcam.engine.score import ScoreMatrix
from ortcam.errors import OrtcamError
from ortcam.evaluation.engines.jobs import Job, Outcome
from ortcam.evaluation.entries import baselines, for_bundle, parse_entries
from ortcam.evaluation.journal import Failure
from ortcam.evaluation.measuring import Measuring
from ortcam.evaluation.protocols import Protocol, resolve_metrics
from ortcam.evaluation.sanity.comparing import ShuffledModels
from ortcam.explainer import Explainer, load_with
from ortcam.images.photograph import Photograph
from ortcam.request import Score

__all__ = ["Bench", "Recipe"]

# Bytes that a limit of memory leaves free for images, their altered copies and the report. Measured with the shipped
# model: 50 MB.
_RESERVED: Final = 64 << 20


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is measured, and how.

    Attributes:
        methods: each METHOD[:KEY=VALUE...], as text; the baselines come on top.
        protocol: the conventions.
        metrics: names of what is measured.
        step: pixels per step of insertion and deletion; None: a hundredth of the image.
        batch_size: masked or altered images per run.
        precision: of the masked passes where the entry does not say.
        seed: of the random weights.
        loading: further arguments of `ortcam.load`.
        score: that is explained; None: the class that the model gives each image.
    """

    methods: tuple[str, ...]
    protocol: Protocol
    metrics: tuple[str, ...]
    step: int | None
    batch_size: BatchSize
    precision: str | None
    seed: int
    loading: Mapping[str, Any]
    score: Score | None = None

    def matrix(self, manifest: Manifest) -> ScoreMatrix | None:
        """The score as numbers; None where classes are explained.

        Raises:
            OptionError: the model has no such outputs.
            TargetError: it has no such class.
        """
        return None if self.score is None or self.score.word is not None else self.score.matrix(manifest)

    def fitting(self, manifest: Manifest, metrics: Sequence[str] | None) -> "Recipe":
        """The same for a bundle: where what is explained is no probability, of values.

        Args:
            manifest: of the bundle.
            metrics: as the user named them; None: those of the protocol.

        Raises:
            OptionError: one of them needs probabilities.
            OrtcamError: as `matrix`.
        """
        if self.has_probabilities(manifest):
            return self
        protocol = self.protocol.of_values()
        return dataclasses.replace(self, protocol=protocol, metrics=resolve_metrics(metrics, protocol))

    def has_probabilities(self, manifest: Manifest) -> bool:
        """Whether confidences are those of a class, by the protocol, or a score that is a probability.

        Raises:
            OrtcamError: as `matrix`.
        """
        matrix = self.matrix(manifest)
        if matrix is None:
            return manifest.activation != "identity"
        return matrix.is_probability and self.protocol.confidence == "probability"


class Bench:
    """Measures images, one after the other.

    Attributes:
        explainers: of the bundle, by precision. The one under None does everything but the masked passes.
        explainer: that one.
        entries: methods and baselines, with a method in place of "auto".
        measuring: the metrics.
    """

    def __init__(self, bundle: Bundle, recipe: Recipe) -> None:
        """Open the model.

        Args:
            bundle: the model.
            recipe: the rest.

        Raises:
            OrtcamError: as `ortcam.load`, or the bundle does not have what a method needs.
        """
        entries = [*parse_entries(recipe.methods, recipe.score), *baselines(recipe.seed)]

        opening, reading = _opening(recipe.loading)

        def opened(model: Any, precision: str | None = None) -> Explainer:
            return load_with(opening, model, reading, precision=precision)

        precisions = dict.fromkeys([None, *(entry.precision for entry in entries)])
        self.explainers = {name: opened(bundle, name or recipe.precision) for name in precisions}
        self.explainer = self.explainers[None]
        self.entries = for_bundle(entries, bundle.manifest)
        self.measuring = Measuring(
            self.explainers,
            recipe.protocol,
            recipe.metrics,
            step=recipe.step,
            batch_size=recipe.batch_size,
            score=recipe.matrix(bundle.manifest),
        )
        self._shuffled = ShuffledModels(self.measuring, bundle, opened, recipe.batch_size, recipe.seed)

    def outcomes(self, job: Job, photograph: Callable[[], Photograph]) -> Iterator[Outcome]:
        """Do a job.

        Args:
            job: the image and its entries.
            photograph: returns the image, or raises what is wrong with it.

        Yields:
            What comes of each entry; one failure, without an entry, where the image cannot be read.

        Raises:
            OutputError: shuffled weights cannot be written.
        """
        name = job.example.name
        try:
            clean = self.measuring.clean(job.example, photograph())
        except OrtcamError as error:
            yield Failure(name, None, str(error))
            return
        for entry in (item for item in self.entries if item.name in job.entries):
            if job.depth is not None:
                yield self._shuffled.compare(clean, entry, job.depth)
                continue
            found: Outcome
            try:
                found = self.measuring.measure(clean, entry)
            except OrtcamError as error:
                found = Failure(name, entry.name, str(error))
            yield found


def _opening(loading: Mapping[str, Any]) -> tuple[SessionOptions, dict[str, Any]]:
    """How the models are opened, and how images are read. A limit of memory is of them all."""
    given = dict(loading)
    megabytes, threads = given.pop("memory_limit", None), given.pop("threads", None)
    providers, strict_providers = resolve_providers(given.pop("providers", None)), given.pop("strict_providers", False)
    limit = None if megabytes is None else MemoryLimit(megabytes, ResetPeaks(), reserved=_RESERVED)
    return SessionOptions(providers, threads, strict_providers=strict_providers, memory_limit=limit), given
