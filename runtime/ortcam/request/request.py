"""`ExplainRequest`: the arguments of `Explainer.explain`, checked once, whoever the caller is."""

import argparse
import dataclasses
import reprlib
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Manifest
from ortcam.engine.batching import BatchSize
from ortcam.engine.score import ScoreMatrix
from ortcam.errors import OptionError, TargetError
from ortcam.methods import AUTO_METHOD, MASKED_ONLY, METHODS, Method, Settings, check_fits, resolve_method
from ortcam.methods.auto import row_of
from ortcam.request.outputs import output_example, outputs_in_words
from ortcam.request.score import Score
from ortcam.request.score_text import VALUES
from ortcam.request.targets import Target, as_targets, as_top_k, class_index, most_probable
from ortcam.scoring.limits import Completion, Limits
from ortcam.support.ranges import BATCH_SIZE, CHANNELS, DEADLINE, SAMPLING_ERROR, SHARE, TOLERANCE, shown

__all__ = ["LIMITS", "ExplainRequest", "check_batch_size", "check_classes", "read_batch_size", "read_budget"]


@dataclasses.dataclass(frozen=True)
class ExplainRequest:
    """What is asked of an image. `of` makes one from the arguments of `Explainer.explain` and checks them.

    Attributes:
        settings: the method, every one of its options, and its plan.
        limits: when scoring may stop early.
        target: the classes as the caller names them; None: the `top_k` most probable.
        top_k: how many classes, where there is no target; checked once the number of classes is known.
        batch_size: masked images, or altered features, per run of the graph.
        sampling_error: relative standard error of a weight at which sampling stops; None: take all samples.
        chosen: where the method was "auto": the method taken and why, in one line.
        score: what is explained in place of the method's usual score of a class.
        given: the names of the options that were given, not completed.
    """

    settings: Settings
    limits: Limits
    target: tuple[Target, ...] | None
    top_k: int
    batch_size: BatchSize
    sampling_error: float | None
    chosen: str | None = None
    score: Score | None = None
    given: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        /,
        *,
        method: str = "auto",
        target: Target | Iterable[Target] | None = None,
        top_k: int = 1,
        batch_size: BatchSize = "auto",
        budget: float | int | None = None,
        deadline: float | None = None,
        tolerance: float | None = None,
        completion: Completion = "gaussian-process",
        sampling_error: float | None = None,
        score: Score | str | None = None,
        **options: object,
    ) -> Self:
        """Check the arguments of `Explainer.explain`, as far as that needs no bundle.

        Raises:
            OptionError: an unknown method or option, or a value that is not accepted.
            TargetError: targets that are neither indices nor labels, none of them, or `top_k` beside them.

        Example:
            >>> ExplainRequest.of(method="cam", target=["dog", 3]).target
            ('dog', 3)
        """
        asked = Score.of(score)
        if asked is not None and asked.word is not None and _has_score(METHODS.find(method)):
            options, asked = options | {"score": asked.text}, None  # of the method itself
        settings = resolve_method(method, options)
        limits = Limits(budget, deadline, tolerance, completion)
        size = check_batch_size(batch_size)
        error = None if sampling_error is None else float(SAMPLING_ERROR.check(sampling_error))
        _check_limits_fit(settings, limits, error)
        targets = None if target is None else as_targets(target)
        if targets is not None and (count := as_top_k(top_k)) != 1:
            raise TargetError(f"top_k={count} with target={_in_words(targets)}: give one or the other")
        if asked is not None and asked.word is None and (targets is not None or as_top_k(top_k) != 1):
            beside = f"top_k={top_k}" if targets is None else f"target={_in_words(targets)}"
            raise TargetError(
                f"score={shown(asked.text)} with {beside}: an expression is one score and names its classes itself; "
                "accepted beside a target is score=logit or score=probability"
            )
        return cls(settings, limits, targets, top_k, size, error, None, asked, frozenset(options))

    def for_bundle(self, manifest: Manifest, *, previews: bool = False) -> Self:
        """The request for one bundle: with a method in place of "auto", and checked as `check` does.

        Limits need a method that masks the image, and so do previews of a single copy: "auto" then takes such a method.

        Args:
            manifest: of the bundle.
            previews: whether maps on the way are wanted, too.

        Raises:
            TargetError: as `check`.
            OptionError: as `check`.
        """
        request = self
        if self.settings.method is AUTO_METHOD:
            augmentation = self.settings.augmentation
            row = row_of(manifest, limited=bool(self.limits.given) or (previews and augmentation is None))
            arguments = dict(row.arguments)
            limits = dataclasses.replace(self.limits, budget=arguments.pop("budget", self.limits.budget))
            common = {} if augmentation is None else augmentation.record()
            settings = resolve_method(row.method, arguments | common)
            request = dataclasses.replace(
                self, settings=settings, limits=limits, chosen=row.line, given=frozenset(arguments)
            )
        request._check_words(manifest)
        request = request._with_score(manifest)
        request.check(manifest)
        return request

    def _check_words(self, manifest: Manifest) -> None:
        """Refuse probabilities of a model whose outputs are values.

        Raises:
            OptionError: they are asked for.
        """
        said = self.settings.all_options.get("score") if "score" in self.given else None
        if self.score is not None:
            said = self.score.text
        if said == "probability" and manifest.activation == "identity" and manifest.has_classes:
            raise OptionError(f"score='probability': {VALUES}")

    def _with_score(self, manifest: Manifest) -> Self:
        """The request with the options that follow from the score.

        A score that is no probability has no zero of its own: a method that can subtracts what the blank image gives,
        unless told otherwise. "logit" and "probability" are an option of methods that have one of the name `score`.
        """
        settings, score = self.settings, self.score
        if score is not None and score.word is not None and _has_score(settings.method):
            settings = resolve_method(settings.method.name, settings.all_options | {"score": score.text})
            return dataclasses.replace(self, settings=settings, score=None)
        plan = settings.plan
        if plan is None or plan.weighting != "probability" or "baseline" not in settings.method.defaults:
            return self
        if "baseline" in self.given or self.has_zero(manifest):
            return self
        settings = resolve_method(settings.method.name, settings.all_options | {"baseline": "zeros"})
        return dataclasses.replace(self, settings=settings)

    def has_zero(self, manifest: Manifest) -> bool:
        """Whether 0 is the least value of what is explained, and means nothing: so of probabilities and their sums."""
        if self.score is None or self.score.word is not None:
            by_logit = self.score is not None and self.score.word == "logits"
            return manifest.activation != "identity" and not by_logit
        return self.score.matrix(manifest).is_positive

    def matrix(self, manifest: Manifest, targets: NDArray[np.int64]) -> ScoreMatrix | None:
        """What is explained as numbers; None: what the method itself takes of a class.

        Args:
            manifest: of the bundle.
            targets: int64 [K], the classes; of an expression -1.
        """
        score, activation = self.score, manifest.activation
        if score is not None and score.word is None:
            return score.matrix(manifest)
        if activation == "identity":
            return ScoreMatrix.of_classes("logits", targets, activation=activation, outputs=manifest.outputs)
        if score is None:
            return None
        assert score.word is not None  # of scores that are no expression
        return ScoreMatrix.of_classes(score.word, targets, activation=activation, outputs=manifest.outputs)

    def has_probabilities(self, manifest: Manifest) -> bool:
        """Whether the numbers beside the maps are probabilities, not values of a score or of outputs."""
        if self.score is None or self.score.word is not None:
            return manifest.activation != "identity"
        return self.score.matrix(manifest).is_probability

    def check(self, manifest: Manifest) -> None:
        """Check that a bundle has the classes, and what the method needs. For "auto" every bundle has a method.

        Raises:
            TargetError: a class, or a number of classes, that the model does not have.
            OptionError: the method needs a head, a gradient or a layer that the bundle does not have; the message says
                what works.
        """
        check_batch_size(self.batch_size, manifest)
        if self.score is None or self.score.word is not None:
            check_classes(manifest)
            as_top_k(self.top_k, manifest.outputs)
            for item in self.target or ():
                class_index(item, manifest.labels)
        check_fits(self.settings, manifest)
        if self.score is not None:
            _check_score(self.score, self.settings, manifest)

    def classes(
        self, logits: NDArray[np.float32], labels: tuple[str, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """Find the classes to explain.

        Args:
            logits: float32 [classes], of the clean image.
            labels: of all classes.

        Returns:
            The classes, int64 [K], each once, or -1 for an expression; and for every class asked for its place among
            them, intp [N].

        Raises:
            TargetError: a class, or a number of classes, that the model does not have.
        """
        if self.score is not None and self.score.word is None:
            return np.array([-1], np.int64), np.arange(1)
        top_k = as_top_k(self.top_k, len(labels))
        if self.target is None:
            return most_probable(logits, top_k), np.arange(top_k)
        wanted = [class_index(item, labels) for item in self.target]
        once = list(dict.fromkeys(wanted))
        return np.array(once, np.int64), np.array([once.index(index) for index in wanted])

    def record(self) -> dict[str, Any]:
        """What a saved manifest has of the request: method, options, and limits (None where the method has none)."""
        limits = None
        if self.settings.method.masks_image:
            limits = dataclasses.asdict(self.limits) | {"sampling_error": self.sampling_error}
        score = {} if self.score is None else self.score.record()
        return {"method": self.settings.method.name, "options": self.options, "limits": limits, **score}

    @property
    def options(self) -> dict[str, object]:
        """Every option that the map depends on: what a method would take of a class is none beside an expression."""
        options = self.settings.all_options
        return options if self.score is None else {name: options[name] for name in options if name != "score"}


def _has_score(method: Method | None) -> bool:
    """Whether a method has an option that says which score of a class it takes."""
    return method is not None and "score" in method.defaults


def check_classes(manifest: Manifest) -> None:
    """Refuse to explain classes of a model that has none.

    Raises:
        TargetError: its output is a tensor.
    """
    if not manifest.has_classes:
        raise TargetError(
            f"{outputs_in_words(manifest)} without classes: say what to explain, such as --score "
            f"{output_example(manifest)!r} (score=)"
        )


def _check_score(score: Score, settings: Settings, manifest: Manifest) -> None:
    """Refuse a score that the method or the bundle cannot do.

    Raises:
        OptionError: the method explains classes alone, or the scorers are from before scores.
        TargetError: the model has no such class.
    """
    method, plan = settings.method, settings.plan
    if method.compute is not None:
        if not method.takes_scores and not (score.word == "logits" and method.needs_gradient):
            names = ", ".join(item.name for item in METHODS if item.plan is not None or item.takes_scores)
            raise OptionError(f"score with {method.name}: it explains classes alone; accepted: {names}")
        if score.word is None:
            score.matrix(manifest)
        return
    assert plan is not None  # of every method that has no function `compute`
    if score.word is not None and (score.word == "probabilities") == (plan.weighting == "probability"):
        return
    terms = {score.word} if score.word is not None else {*score.matrix(manifest).weights}
    if not terms <= {*manifest.graphs.score_terms}:
        raise OptionError(
            f"score={shown(score.text)} with {method.name}: the graphs of this bundle were made before there were "
            "scores: export the model again, or take a method that masks no image, such as "
            f"{'grad-cam' if manifest.gradient else 'recipro-cam'}"
        )


def _check_limits_fit(settings: Settings, limits: Limits, sampling_error: float | None) -> None:
    """Refuse limits that do not go with the method.

    Raises:
        OptionError: the method masks no image, or takes no samples.
    """
    name, plan = settings.method.name, settings.plan
    if plan is not None or settings.method is AUTO_METHOD:
        if sampling_error is not None and (plan is None or plan.samples == 1):
            raise OptionError(f"sampling_error with {name}: goes with methods that take a mean over samples")
        return
    given = [*limits.given, *(["sampling_error"] if sampling_error is not None else [])]
    if given:
        raise OptionError(f"{', '.join(given)} with {name}: {MASKED_ONLY}")


def check_batch_size(batch_size: object, manifest: Manifest | None = None) -> BatchSize:
    """The masked images per run, as Python's own int, or "auto".

    Args:
        batch_size: as given.
        manifest: of the bundle that is to take it, where it is known.

    Raises:
        OptionError: another text, a number that is not accepted, or not the one that the bundle's graphs are fixed at.
    """
    if isinstance(batch_size, str) and batch_size == "auto":
        return "auto"
    size, static = int(BATCH_SIZE.check(batch_size)), None if manifest is None else manifest.graphs.static_batch
    if static not in (None, size):
        raise OptionError(
            f"batch_size={size}: the graphs of this bundle are fixed at {static} rows per run (--static-batch); "
            f"accepted is {static} or auto"
        )
    return size


def read_batch_size(text: str) -> BatchSize:
    """Masked images per run, or "auto", as the command line has them; a type of argparse.

    Raises:
        ArgumentTypeError: neither.
        OptionError: a number that is not accepted.
    """
    return "auto" if text == "auto" else int(BATCH_SIZE(text))


def read_budget(text: str) -> float | int:
    """A budget as the command line has it: a share where there is a point or a percent sign, else a number of channels.

    It is a type of argparse.

    Raises:
        ArgumentTypeError: neither.
        OptionError: a number that is not accepted.

    Example:
        >>> read_budget("12%"), read_budget("0.5"), read_budget("64")
        (0.12, 0.5, 64)
    """
    try:
        value: float | int
        if text.endswith("%"):
            value = SHARE.read(text[:-1]) / 100
        else:
            value = (SHARE if set(text) & set(".eE") else CHANNELS).read(text)
    except ValueError:
        message = f"{shown(text)}: accepted is a share of the channels (0.12, 12%) or a number of them"
        raise argparse.ArgumentTypeError(message) from None
    Limits(budget=value)
    return value


# The arguments that limit the passes of methods that mask the image, and how each is read from a text.
LIMITS: Final[dict[str, Callable[[str], object]]] = {
    "budget": read_budget,
    "deadline": DEADLINE.read,
    "tolerance": TOLERANCE.read,
    "completion": str,
    "sampling_error": SAMPLING_ERROR.read,
}


def _in_words(targets: tuple[Target, ...]) -> str:
    return repr(targets[0]) if len(targets) == 1 else reprlib.repr(list(targets))
