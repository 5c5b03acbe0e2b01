"""One explanation: from a request and an image to the result. All its state lies here, and none on the explainer."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam._version import __version__
from ortcam.engine.base import Session
from ortcam.engine.batching import Progress
from ortcam.engine.features import check_finite, prefix_tokens
from ortcam.engine.model import GATED_OUTPUTS, SCORER_OUTPUTS, CleanPass, Model
from ortcam.engine.opening import SessionOptions
from ortcam.engine.runtime import runtime_version
from ortcam.explainer.clock import Clock
from ortcam.images.photograph import Photograph
from ortcam.methods import Head, HeadInputs, LinearHead, Plan, active_channels
from ortcam.request import ExplainRequest
from ortcam.results.explanation import Explanation, Stats
from ortcam.scoring.budget import score
from ortcam.scoring.loop import Scoring
from ortcam.scoring.maps import finish, raw_maps
from ortcam.scoring.masks import Masks, prepare_masks
from ortcam.scoring.pace import Paces
from ortcam.scoring.scores import Scores

__all__ = ["Run"]

_HEAD_BATCH_SIZE: Final = 32


@dataclasses.dataclass(frozen=True)
class _Image:
    """An image on its way: as it was read, what the model makes of it, and the classes to explain."""

    photograph: Photograph
    clean: CleanPass
    targets: NDArray[np.int64]  # [K], each once
    asked: NDArray[np.intp]  # [N], of every class asked for its place among them


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What a method gives for K classes: the arrays of an `Explanation` before they become float32."""

    maps: NDArray[np.float32]
    raw_maps: NDArray[np.float64]
    weights: NDArray[np.float64]
    flat: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    stats: Stats


class Run:
    """A request, made of one image."""

    def __init__(
        self,
        model: Model,
        options: SessionOptions,
        paces: Paces,
        request: ExplainRequest,
        *,
        progress: Progress | None = None,
        previews: bool = False,
    ) -> None:
        """Begin with nothing; the clock starts with `explanations`.

        Args:
            model: shared with other runs.
            options: how the model's sessions are opened, for the record.
            paces: what is known about the time that passes take; shared with other runs.
            request: what is asked.
            progress: called after every run of a graph.
            previews: whether what is known on the way is given, too.
        """
        self._model = model
        self._manifest = model.bundle.manifest
        self._options = options
        self._paces = paces
        self._request = request
        self._progress = progress
        self._previews = previews

    def explanations(self, read: Callable[[], Photograph]) -> Iterator[Explanation]:
        """The explanations on the way to the one asked for, which is the last.

        Args:
            read: reads the image.

        Raises:
            OrtcamError: as `Explainer.explain`.
        """
        clock = Clock()
        request = self._request
        request.check(self._manifest)
        photograph = read()
        clock.lap("decode")
        clean = self._model.clean_pass(photograph.model_input)
        image = _Image(photograph, clean, *request.classes(clean.logits, self._manifest.labels))
        clock.lap("features")
        plan = request.settings.plan
        outcomes = self._with_head(image, clock) if plan is None else self._with_masks(image, plan, clock)
        for outcome in outcomes:
            yield self._explanation(image, outcome)
            clock.skip()

    def _with_masks(self, image: _Image, plan: Plan, clock: Clock) -> Iterator[_Outcome]:
        """By a method that masks the image."""
        model_input, targets = image.photograph.model_input, image.targets
        height, width = model_input.shape[2:]
        masks = prepare_masks(image.clean.maps, plan, height=height, width=width)
        clock.lap("prepare")
        session = self._model.scorer(plan.scorer)
        limits = self._request.limits
        with session.bind(GATED_OUTPUTS if plan.gate else SCORER_OUTPUTS) as scorer:
            scoring = Scoring(
                scorer,
                image=model_input,
                masks=masks,
                plan=plan,
                targets=targets,
                baseline=self._baseline(plan, targets),
                sizer=self._model.sizer(plan.scorer, session, self._request.batch_size),
                sampling_error=self._request.sampling_error,
                pace=self._paces.of(plan.scorer, len(targets)),
            )
            steps = score(scoring, limits, started=clock.start, progress=self._progress, previews=self._previews)
            for scores in steps:
                clock.lap("scoring")
                with scoring.pace.timing("finish", scoring.pixels * len(targets)):
                    raw = raw_maps(masks, plan, scores)
                    maps, flat = finish(raw, height, width)
                clock.lap("map")
                stats = _stats(session, self._model.precision, masks, scores, clock, limits.deadline)
                yield _Outcome(maps, raw, scores.weights, flat, scores.scored, stats)

    def _baseline(self, plan: Plan, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        """p(0)[c], float32 [K], where the plan subtracts it; else zeros."""
        if not plan.baseline or plan.weighting != "probability":
            return np.zeros(len(targets), np.float32)
        return self._model.empty_image_probabilities(targets)

    def _with_head(self, image: _Image, clock: Clock) -> Iterator[_Outcome]:
        """By a method that masks no image."""
        model, manifest, clean = self._model, self._manifest, image.clean
        batch_size = self._request.batch_size
        if batch_size == "auto":
            batch_size = 1 if model.low_memory else _HEAD_BATCH_SIZE
        head = Head(model.head_logits, manifest.cut, manifest.activation, batch_size, self._progress)

        def linear_head() -> LinearHead:
            return model.keep("linear head", lambda: LinearHead.recover(head))

        prefix = prefix_tokens(clean.features, manifest.cut)
        scores = self._request.settings.compute(
            HeadInputs(clean.maps, prefix, clean.logits, image.targets, head, linear_head)
        )
        clock.lap("scoring")
        maps, flat = finish(scores.raw, *image.photograph.model_input.shape[2:])
        clock.lap("map")
        session = model.head if head.runs else model.features
        active = active_channels(clean.maps)
        stats = Stats(
            providers=_names(session),
            precision=manifest.precision,
            batch_size=batch_size,
            channels=len(active),
            live_channels=int(active.sum()),
            scored_channels=int(active.sum()),
            passes=0,
            runs=head.runs,
            seconds=clock.total(),
            seconds_by_stage=dict(clock.laps),
            head_passes=head.passes,
        )
        yield _Outcome(maps, scores.raw, scores.weights, flat, active, stats)

    def _explanation(self, image: _Image, outcome: _Outcome) -> Explanation:
        """The result, as the caller gets it.

        Raises:
            NotFiniteError: a value is not finite, or float32 does not hold it.
        """
        with np.errstate(over="ignore"):  # what float32 does not hold is an error, below
            raw, weights = outcome.raw_maps.astype(np.float32), outcome.weights.astype(np.float32)
        maps, flat, targets, stats = outcome.maps, outcome.flat, image.targets, outcome.stats
        check_finite("values of map and weights", maps, raw, weights)
        asked = image.asked
        if len(asked) > len(targets):  # a class that was asked for twice is explained once and given twice
            targets, flat = targets[asked], flat[asked]
            maps, raw, weights = maps[asked], raw[asked], weights[asked]
            stats = dataclasses.replace(
                stats,
                estimated_error=_taken(stats.estimated_error, asked),
                standard_error=_taken(stats.standard_error, asked),
            )
        settings, labels = self._request.settings, self._manifest.labels
        return Explanation(
            method=settings.method.name,
            title=settings.method.title,
            options=settings.options,
            targets=tuple(int(index) for index in targets),
            labels=tuple(labels[index] for index in targets),
            probabilities=image.clean.probabilities[targets],
            maps=maps,
            raw_maps=raw,
            weights=weights,
            scored=outcome.scored,
            flat=flat,
            image=image.photograph.pixels,
            preprocessing=image.photograph.preprocessing,
            stats=stats,
            provenance=self._provenance(image.photograph),
        )

    def _provenance(self, photograph: Photograph) -> dict[str, Any]:
        manifest, bundle = self._manifest, self._model.bundle
        return {
            "limits": self._request.record()["limits"],
            "image": photograph.record,
            "bundle": {"name": bundle.path.resolve().name, "sha256": bundle.sha256},
            "model": dataclasses.asdict(manifest.model),
            "cut": dataclasses.asdict(manifest.cut),
            "activation": manifest.activation,
            "preprocessing": dataclasses.asdict(photograph.preprocessing),
            "requested_providers": [[name, dict(values)] for name, values in self._options.providers],
            "threads": self._options.threads,
            "versions": {"ortcam": __version__, "onnxruntime": runtime_version(), "numpy": np.__version__},
        }


def _stats(
    session: Session, precision: str, masks: Masks, scores: Scores, clock: Clock, deadline: float | None
) -> Stats:
    late = 0.0 if deadline is None else max(clock.since_start() - deadline / 1000, 0.0)
    return Stats(
        providers=_names(session),
        precision=precision,
        batch_size=scores.batch_size,
        channels=len(masks.active),
        live_channels=len(masks.order),
        scored_channels=int(scores.scored.sum()),
        passes=scores.passes,
        runs=scores.chunks,
        seconds=clock.total(),
        seconds_by_stage=dict(clock.laps),
        energy_covered=scores.energy_covered,
        estimated_error=None if scores.error is None else tuple(float(error) for error in scores.error),
        standard_error=(
            None if scores.standard_error is None else tuple(float(error) for error in scores.standard_error)
        ),
        simplified=scores.simplified,
        seconds_late=late,
    )


def _names(session: Session) -> tuple[str, ...]:
    return tuple(name for name, _ in session.providers)


def _taken(values: tuple[float, ...] | None, places: NDArray[np.intp]) -> tuple[float, ...] | None:
    return None if values is None else tuple(values[place] for place in places)
