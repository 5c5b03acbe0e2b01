"""One explanation: from a request and an image to the result. All its state lies here, and none on the explainer."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam._version import __version__
from ortcam.bundle import Cut
from ortcam.engine.base import Session
from ortcam.engine.batching import BatchSize, Progress, Stop
from ortcam.engine.features import CleanPass, as_maps, check_finite, prefix_tokens
from ortcam.engine.model import GATED_OUTPUTS, SCORER_OUTPUTS, Model, run_head
from ortcam.engine.opening import SessionOptions
from ortcam.engine.runtime import runtime_version
from ortcam.explainer.augmentation.copies import Copies
from ortcam.explainer.augmentation.warps import Warp
from ortcam.explainer.clock import Clock
from ortcam.explainer.outcome import Outcome
from ortcam.explainer.scored import Scored, blank_scores, scored_by
from ortcam.images.photograph import Photograph
from ortcam.methods import (
    Augmentation,
    Derivative,
    Features,
    Head,
    HeadInputs,
    Layer,
    LinearHead,
    Plan,
    active_channels,
)
from ortcam.request import ExplainRequest
from ortcam.results.explanation import Explanation, Stats
from ortcam.scoring.budget import score
from ortcam.scoring.limits import Limits
from ortcam.scoring.loop import Scoring
from ortcam.scoring.maps import finish, fuse, raw_maps
from ortcam.scoring.masks import Masks, prepare_masks
from ortcam.scoring.noise import draw_noise
from ortcam.scoring.pace import Paces
from ortcam.scoring.prediction.memory import Memory
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
        stop: Stop | None = None,
        previews: bool = False,
        memory: Memory | None = None,
    ) -> None:
        """Begin with nothing; the clock starts with `explanations`.

        Args:
            model: shared with other runs.
            options: how the model's sessions are opened, for the record.
            paces: what is known about the time that passes take; shared with other runs.
            request: what is asked.
            progress: called after every run of a graph.
            stop: as `Explainer.explain_request` takes it.
            previews: whether what is known on the way is given, too.
            memory: of a stream, whose frame the image is; copies of the image (`augment`) do without.
        """
        self._model = model
        self._manifest = model.bundle.manifest
        self._options = options
        self._paces = paces
        self._request = request
        self._progress = progress
        self._stop = stop
        self._previews = previews
        self._memory = memory

    def explanations(self, read: Callable[[], Photograph]) -> Iterator[Explanation]:
        """The explanations on the way to the one asked for, which is the last.

        Args:
            read: reads the image.

        Raises:
            OrtcamError: as `Explainer.explain`.
        """
        clock = Clock()
        self._request = request = self._request.for_bundle(self._manifest, previews=self._previews)
        photograph = read()
        clock.lap("decode")
        clean = self._model.clean_pass(photograph.model_input)
        image = _Image(photograph, clean, *request.classes(clean.logits, self._manifest.labels))
        if self._model.limit is not None:
            self._model.limit.check_classes(len(image.targets), photograph.model_input.shape[2:])
        clock.lap("features")
        for outcome in self._outcomes(image, clock):
            explanation = self._explanation(image, outcome)
            if self._model.limit is not None:
                self._model.limit.check("explained an image")
            yield explanation
            clock.skip()

    def _outcomes(self, image: _Image, clock: Clock) -> Iterator[Outcome]:
        """By the method that is asked for, of the image alone or of copies of it."""
        settings = self._request.settings
        if settings.augmentation is not None:
            return self._of_copies(image, clock, settings.augmentation)
        if settings.plan is not None:
            return self._with_masks(image, settings.plan, clock)
        return self._with_head(image, clock)

    def _of_copies(self, image: _Image, clock: Clock, augmentation: Augmentation) -> Iterator[Outcome]:
        """By any method, of copies of the image, for the classes of the image itself."""
        request, (height, width) = self._request, image.photograph.model_input.shape[2:]
        settings = dataclasses.replace(request.settings, augmentation=None)

        def explain(warp: Warp, limits: Limits, progress: Progress | None) -> Outcome:
            copy = image
            if not warp.is_identity:
                moved = dataclasses.replace(image.photograph, model_input=warp.copy(image.photograph.model_input))
                copy = dataclasses.replace(image, photograph=moved, clean=self._model.clean_pass(moved.model_input))
                clock.lap("features")
            asked = dataclasses.replace(request, settings=settings, limits=limits)
            run = Run(self._model, self._options, self._paces, asked, progress=progress, stop=self._stop)
            *_, outcome = run._outcomes(copy, clock)
            return outcome

        pace = self._paces.of(f"copies, {augmentation.combine}", len(image.targets))
        copies = Copies(
            augmentation, request.limits, (height, width), clock, pace, self._progress, self._previews, self._stop
        )
        return copies.outcomes(explain)

    def _with_masks(self, image: _Image, plan: Plan, clock: Clock) -> Iterator[Outcome]:
        """By a method that masks the image."""
        model_input, targets = image.photograph.model_input, image.targets
        height, width = model_input.shape[2:]
        masks = prepare_masks(image.clean.maps, plan, height=height, width=width)
        clock.lap("prepare")
        session = self._model.scorer(plan.scorer)
        scored = self._scored(plan, targets)
        limits = self._request.limits
        with session.bind(GATED_OUTPUTS if plan.gate else SCORER_OUTPUTS) as scorer:
            scoring = Scoring(
                scorer,
                image=model_input,
                masks=masks,
                plan=plan,
                targets=scored.columns,
                baseline=scored.baseline,
                sizer=self._model.sizer(plan.scorer, session, self._request.batch_size),
                sampling_error=self._request.sampling_error,
                pace=self._paces.of(plan.scorer, len(targets)),
                score=scored.rows,
                signed=not self._request.has_zero(self._manifest),
            )
            steps = score(
                scoring,
                limits,
                started=clock.start,
                progress=self._progress,
                stop=self._stop,
                previews=self._previews,
                memory=self._memory,
            )
            for scores in steps:
                clock.lap("scoring")
                with scoring.pace.timing("finish", scoring.pixels * len(targets)):
                    raw = raw_maps(masks, plan, scores)
                    maps, flat = finish(raw, height, width)
                clock.lap("map")
                stats = _stats(session, self._model.precision, masks, scores, clock, limits.deadline)
                yield Outcome(maps, raw, scores.weights, flat, scores.scored, stats, (self._manifest.cut,))

    def _scored(self, plan: Plan, targets: NDArray[np.int64]) -> Scored:
        """What the scorer is asked for, and what the blank image gives where the plan subtracts it."""
        scored = scored_by(self._request, self._manifest, plan, targets)
        if not plan.baseline or plan.weighting != "probability":
            return scored
        blank = blank_scores(self._request, self._manifest, targets, self._model.blank_logits())
        return dataclasses.replace(scored, baseline=blank)

    def _with_head(self, image: _Image, clock: Clock) -> Iterator[Outcome]:
        """By a method that masks no image."""
        model, manifest, clean = self._model, self._manifest, image.clean
        batch_size = _head_rows(model, self._request.batch_size)
        least = manifest.graphs.static_batch or 1
        head = Head(model.head_logits, manifest.cut, manifest.activation, batch_size, self._progress, least=least)
        derivative = self._derivative(image, batch_size) if self._request.settings.method.needs_gradient else None

        def linear_head() -> LinearHead:
            return model.keep("linear head", lambda: LinearHead.recover(head))

        matrix = self._request.matrix(manifest, image.targets)
        prefix = prefix_tokens(clean.features["features"], manifest.cut)
        scores = self._request.settings.compute(
            HeadInputs(clean.maps, prefix, clean.logits, image.targets, head, linear_head, derivative, matrix)
        )
        clock.lap("scoring")
        size = image.photograph.model_input.shape[2:]
        raw = fuse([item.raw for item in scores.all], *size) if scores.others else scores.raw
        maps, flat = finish(raw, *size)
        weights = np.concatenate([item.weights for item in scores.all], axis=1)
        clock.lap("map")
        layers = (Layer(manifest.cut, clean.maps),) if derivative is None else derivative.layers
        layers = tuple(layers[item.layer] for item in scores.all)
        active = np.concatenate([active_channels(layer.maps) for layer in layers])
        stats = self._head_stats(head, derivative, active, clock)
        yield Outcome(maps, raw, weights, flat, active, stats, tuple(layer.cut for layer in layers))

    def _derivative(self, image: _Image, batch_size: int) -> Derivative:
        """The gradients of the logits at the image, for the layers of the bundle."""
        model, model_input, features = self._model, image.photograph.model_input, image.clean.features
        layers = [
            Layer(cut, as_maps(features[name], cut) if place else image.clean.maps)
            for place, (name, cut) in enumerate(self._manifest.cuts.items())
        ]
        graphs, gradient = self._manifest.graphs, self._manifest.gradient
        inputs_needed = () if gradient is None else gradient.inputs

        @functools.lru_cache(maxsize=1)  # the logits of a sample are asked for behind its features
        def altered(std: float, seed: int, sample: int) -> dict[str, NDArray[np.float32]]:
            noisy_input = model_input + np.float32(std) * draw_noise(seed, sample, model_input.shape)
            return {**model.layers(noisy_input), "image": noisy_input}

        def noisy(std: float, seed: int, sample: int) -> dict[str, NDArray[np.float32]]:
            found = altered(std, seed, sample)
            return {name: found[name] for name in inputs_needed}  # many samples may be kept

        def noisy_logits(std: float, seed: int, sample: int) -> NDArray[np.float32]:
            found = altered(std, seed, sample)
            logits: NDArray[np.float32] = run_head(graphs, model.open, found["image"], found["features"])[0]
            check_finite("logits of a noisy image", logits)
            return logits

        def output(seeds: NDArray[np.float32], inputs: Features, name: str) -> NDArray[np.float32]:
            return model.gradient_outputs(seeds, inputs, (name,))[0]

        return Derivative(
            model.gradients,
            output,
            tuple(layers),
            {**features, "image": model_input},
            noisy,
            batch_size,
            self._progress,
            noisy_logits=noisy_logits,
            least=graphs.static_batch or 1,
        )

    def _head_stats(self, head: Head, derivative: Derivative | None, active: NDArray[np.bool_], clock: Clock) -> Stats:
        model, gradient = self._model, self._manifest.gradient
        session = model.head if head.runs else model.features
        if derivative is not None and gradient is not None:
            session = model.open(gradient.graph)
        return Stats(
            providers=_names(session),
            precision=self._manifest.precision,
            batch_size=head.batch_size if derivative is None else derivative.batch_size,
            channels=len(active),
            live_channels=int(active.sum()),
            scored_channels=int(active.sum()),
            passes=0,
            runs=head.runs + (0 if derivative is None else derivative.runs),
            seconds=clock.total(),
            seconds_by_stage=dict(clock.laps),
            head_passes=head.passes,
            gradient_passes=0 if derivative is None else derivative.passes,
        )

    def _explanation(self, image: _Image, outcome: Outcome) -> Explanation:
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
        settings, labels, score = self._request.settings, self._manifest.labels, self._request.score
        names = tuple(labels[index] for index in targets if index >= 0)
        values, are_probabilities = image.clean.probabilities[targets], self._manifest.activation != "identity"
        if score is not None and score.word is None:
            matrix = score.matrix(self._manifest)
            names, values = (score.text,), matrix.value(image.clean.logits).astype(np.float32)
            are_probabilities = matrix.is_probability
        return Explanation(
            method=settings.method.name,
            title=settings.method.title,
            options=self._request.options,
            targets=tuple(int(index) for index in targets),
            labels=names,
            probabilities=values,
            maps=maps,
            raw_maps=raw,
            weights=weights,
            scored=outcome.scored,
            flat=flat,
            image=image.photograph.pixels,
            preprocessing=image.photograph.preprocessing,
            stats=stats,
            provenance=self._provenance(image.photograph, outcome.layers),
            chosen=self._request.chosen,
            score=None if score is None else score.text,
            are_probabilities=are_probabilities,
        )

    def _provenance(self, photograph: Photograph, layers: tuple[Cut, ...]) -> dict[str, Any]:
        manifest, bundle = self._manifest, self._model.bundle
        finest = max(layers, key=lambda cut: cut.height * cut.width)
        return {
            **{name: value for name, value in self._request.record().items() if name not in ("method", "options")},
            "image": photograph.record,
            "bundle": {"name": self._model.keep("name", lambda: bundle.path.resolve().name), "sha256": bundle.sha256},
            "model": _fields(manifest.model),
            "cut": _fields(finest),
            "layers": [cut.module or cut.tensor for cut in layers],
            "activation": manifest.activation,
            "preprocessing": _fields(photograph.preprocessing),
            "requested_providers": [[name, dict(values)] for name, values in self._options.providers],
            "threads": self._options.threads,
            "versions": {"ortcam": __version__, "onnxruntime": runtime_version(), "numpy": np.__version__},
        }


def _head_rows(model: Model, batch_size: BatchSize) -> int:
    """Rows per run of head or gradient: those of the graphs, as asked for, or one where memory is short."""
    if (static := model.bundle.manifest.graphs.static_batch) is not None:
        return static
    if model.limit is not None or (model.low_memory and batch_size == "auto"):
        return 1
    return _HEAD_BATCH_SIZE if batch_size == "auto" else batch_size


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
        estimated_error=None if scores.error is None else tuple(map(float, scores.error)),
        standard_error=None if scores.standard_error is None else tuple(map(float, scores.standard_error)),
        simplified=scores.simplified,
        seconds_late=late,
    )


def _names(session: Session) -> tuple[str, ...]:
    return tuple(name for name, _ in session.providers)


def _fields(record: Any) -> dict[str, Any]:
    """The fields of a flat dataclass: what `asdict` gives, in a tenth of its time."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _taken(values: tuple[float, ...] | None, places: NDArray[np.intp]) -> tuple[float, ...] | None:
    return None if values is None else tuple(values[place] for place in places)
