"""Features, head and scorers of a bundle against the model that they came from."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Activation, Bundle, Cut, Graph, Graphs, Parity
from ortcam.bundle.gates import GATE_FUNCTIONS
from ortcam.engine.base import Session
from ortcam.engine.features import as_maps, check_finite, check_rows, to_probabilities
from ortcam.engine.model import classify
from ortcam.engine.opening import SessionOptions
from ortcam.engine.providers import resolve_providers
from ortcam.engine.score import TERMS, ScoreMatrix, term_sizes
from ortcam.engine.session import open_session
from ortcam.errors import BundleError, NotFiniteError
from ortcam.parity.probe import probe_input, read_probe
from ortcam.scoring.upsampling import upsample
from ortcam.support.terminal import first_line

__all__ = [
    "PARITY_TOLERANCE",
    "Opener",
    "graphs_in_words",
    "measure_parity",
    "measure_variant",
    "no_score",
    "parity_failure",
    "relative_difference",
    "run_scorer",
    "verify",
    "verify_variants",
]

# Name of a graph -> what a session is opened from: a verified graph of a bundle, or a file just written (`/`).
Opener = Callable[[str], Graph | Path]

# What float32 graphs have to stay within, relative to the largest logit.
PARITY_TOLERANCE: Final = 1e-4

_CHANNELS: Final = 3  # how many each scorer is measured with
_MOST_OF_MAPS: Final = 2**26  # elements of the partial maps that a scorer may make while it is measured: 268 MB
_SOME: Final = 256  # outputs that it is measured in where it may not make a map of each
_NOISE: Final = 0.5  # sigma, with the image itself in place of noise


def verify(bundle: Bundle) -> Parity:
    """Measure the parity of a bundle again, on its own probe, on the CPU.

    Args:
        bundle: read, so its hashes have been checked.

    Returns:
        The parity measured now. `parity_failure` tells whether it exceeds the tolerance recorded at export.

    Raises:
        BundleError: no probe, a probe of another form, or graphs that cannot be run or do not fit the manifest.
        NotFiniteError: a feature or a logit is infinite or not a number.
    """
    manifest = bundle.manifest
    pictures, logits = read_probe(bundle)
    try:
        return measure_parity(
            bundle.graph,
            manifest.graphs,
            manifest.cut,
            manifest.activation,
            images=probe_input(pictures, manifest.preprocessing),
            logits=logits,
            reference=manifest.parity.reference,
            tolerance=manifest.parity.tolerance,
            scorer_tolerance=manifest.parity.scorer_tolerance,
        )
    except (BundleError, NotFiniteError):
        raise
    except Exception as error:  # a graph that does not fit its manifest raises what it meets first
        raise BundleError(f"{bundle.path}: its graphs do not fit its bundle.json: {first_line(error)}") from error


def verify_variants(bundle: Bundle) -> dict[str, float]:
    """Measure again how far the scorers of each variant are from those in float32, on the bundle's own probe.

    Args:
        bundle: read, so its hashes have been checked.

    Returns:
        Name of the variant -> its `Variant.parity` now, to be compared with `Variant.tolerance`.

    Raises:
        BundleError: no probe, a probe of another form, or graphs that cannot be run or do not fit the manifest.
        NotFiniteError: a feature or a logit is infinite or not a number.
    """
    manifest = bundle.manifest
    if not manifest.variants:
        return {}
    pictures, _ = read_probe(bundle)
    images = probe_input(pictures, manifest.preprocessing)
    try:
        found = {
            name: measure_variant(bundle.graph, manifest.graphs, variant.scorers, manifest.cut, images=images)
            for name, variant in manifest.variants.items()
        }
    except (BundleError, NotFiniteError):
        raise
    except Exception as error:  # a graph that does not fit its manifest raises what it meets first
        raise BundleError(f"{bundle.path}: its graphs do not fit its bundle.json: {first_line(error)}") from error
    for name, difference in found.items():
        if not np.isfinite(difference):
            raise NotFiniteError(
                f"{bundle.path}: a logit of the scorers in {name} is infinite or not a number for the bundle's own "
                f"probe: the values go beyond what {name} holds; the scorers in {manifest.precision} hold more"
            )
    return found


def measure_variant(
    opener: Opener, graphs: Graphs, scorers: Mapping[str, str], cut: Cut, *, images: NDArray[np.float32]
) -> float:
    """Measure max |difference| / max |logit| of scorers against a bundle's own, on the strongest channels.

    Maps are min-maxed for the gates, too: integers are calibrated for [0,1] alone.

    Args:
        opener: of the graphs.
        graphs: the bundle's own.
        scorers: kind -> file name, of the variant.
        cut: where the maps come from.
        images: float32 [N,C,H,W], preprocessed; the first is masked.

    Returns:
        The largest value over all kinds; infinite if a logit is not finite.

    Raises:
        BundleError: a graph that ONNX Runtime does not accept.
        NotFiniteError: a feature or a logit is infinite or not a number.
    """
    options = SessionOptions(resolve_providers(["CPUExecutionProvider"]))
    features, logits = classify(graphs, lambda name: open_session(opener(name), options), images[:1])
    check_finite("features and logits of the probe", features, logits)
    maps = as_maps(features, cut)
    strongest = _strongest(maps)
    low, span = maps.min(axis=(1, 2), keepdims=True), np.ptp(maps, axis=(1, 2), keepdims=True)
    maps = (maps - low) / np.where(span > 0, span, 1)
    differences, columns = [], np.arange(logits.shape[1])
    score = no_score(graphs, len(columns))
    for kind, file in scorers.items():
        expected, found = (
            run_scorer(open_session(opener(name), options), images[:1], maps, strongest, columns=columns, score=score)[
                0
            ]
            for name in (graphs.scorers[kind], file)
        )
        differences.append(relative_difference(found, expected))
    return float(np.max(differences))


def measure_parity(
    opener: Opener,
    graphs: Graphs,
    cut: Cut,
    activation: Activation,
    *,
    images: NDArray[np.float32],
    logits: NDArray[np.float32],
    reference: str,
    tolerance: float = PARITY_TOLERANCE,
    scorer_tolerance: float = PARITY_TOLERANCE,
) -> Parity:
    """Compare the graphs with the model at batch sizes N and 1, and each scorer with the graphs on masked images.

    The same figure compares the probabilities of a scorer with the activation of its own logits.

    Args:
        opener: of the graphs.
        graphs: their file names.
        cut: where the maps come from.
        activation: from logits to probabilities.
        images: float32 [N,C,H,W], preprocessed.
        logits: float32 [N,classes], the model's own.
        reference: what computed them, in words.
        tolerance: for the logits, to be recorded; see `parity_failure`.
        scorer_tolerance: for the scorers, to be recorded.

    Raises:
        BundleError: a graph that ONNX Runtime does not accept.
        NotFiniteError: a feature or a logit is infinite or not a number.
    """
    options = SessionOptions(resolve_providers(["CPUExecutionProvider"]))
    session = functools.cache(lambda name: open_session(opener(name), options))

    def run(images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return classify(graphs, session, images)

    check_finite("logits of the original model for the probe", logits)
    features, computed = run(images)
    check_rows("logits", computed, len(images), logits.shape[1])
    check_finite("features and logits of the probe", features, computed)
    _, single = run(images[:1])
    maps = as_maps(features[:1], cut)
    strongest = _strongest(maps)
    expected = {kind: run(_masked(kind, images[:1], maps[strongest]))[1] for kind in graphs.scorers}
    # Each session holds the weights: of the classifier's before the scorers', of theirs one at a time.
    session.cache_clear()
    scorers, classes = [], logits.shape[1]
    matrix = _each_term(graphs, activation, classes)
    score = no_score(graphs, classes) if matrix is None else matrix.rows(graphs.score_terms)
    for kind, file in graphs.scorers.items():
        scorer = open_session(opener(file), options)
        some = _compared(kind, classes, images.shape[2] * images.shape[3])
        columns = np.concatenate([some, classes + np.arange(0 if matrix is None else matrix.count)])
        found, activated = _all_scores(graphs, scorer, images[:1], maps, strongest, columns=columns, score=score)
        masked, probabilities = found[:, : len(some)], activated[:, : len(some)]
        check_finite(f"logits of masked images of the probe ({file})", found, expected[kind])
        scorers.append(relative_difference(masked, expected[kind][:, some]))
        whole = masked if len(some) == classes else expected[kind]
        scorers.append(float(np.abs(probabilities - to_probabilities(whole, activation)[:, some]).max()))
        if matrix is not None:
            scale = max(1.0, float(np.abs(masked).max()), float(np.abs(found[:, len(some) :]).max()))
            both = np.stack([found[:, len(some) :], activated[:, len(some) :]])
            scorers.append(float(np.abs(both - matrix.value(whole)).max()) / scale)
    clean = max(relative_difference(computed, logits), relative_difference(single, logits[:1]))
    return Parity(reference, len(images), clean, float(np.max(scorers)), tolerance, scorer_tolerance)


def parity_failure(parity: Parity, graphs: Graphs) -> str | None:
    """Say what exceeds its tolerance; None if nothing does."""
    for what, difference, tolerance in (
        (graphs_in_words(graphs), parity.logits, parity.tolerance),
        ("a scorer", parity.scorer, parity.scorer_tolerance),
    ):
        if not difference <= tolerance:
            return f"{what} differs from the model by {difference:.1e} relative; accepted is {tolerance:.0e}"
    return None


def graphs_in_words(graphs: Graphs) -> str:
    """Say what gives a bundle's logits: "head(features(x))", or "the classifier" if the cut lies inside a branch."""
    return "head(features(x))" if graphs.head is not None else "the classifier"


def _masked(kind: str, image: NDArray[np.float32], maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mask an image, float32 [1,C,H,W], with maps [B,h,w] as a scorer does: float32 [B,C,H,W]."""
    mask = upsample(maps, *image.shape[2:])[:, None]
    masked = (GATE_FUNCTIONS[kind](mask) if kind in GATE_FUNCTIONS else mask) * image
    return (masked + _NOISE * image if kind == "noise" else masked).astype(np.float32)


def _strongest(maps: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.argsort(-np.abs(maps).sum(axis=(1, 2)), kind="stable")[:_CHANNELS].astype(np.int64)


def _compared(kind: str, classes: int, pixels: int) -> NDArray[np.int64]:
    """The outputs that a scorer is compared in: all of them, or some where it makes a partial map of each."""
    if kind not in GATE_FUNCTIONS or classes * pixels <= _MOST_OF_MAPS:
        return np.arange(classes)
    return np.linspace(0, classes - 1, max(min(_SOME, _MOST_OF_MAPS // pixels), 1)).astype(np.int64)


def no_score(graphs: Graphs, outputs: int) -> NDArray[np.float32]:
    """What scorers take as `score` where only classes are asked for: float32 [1,U] of zeros."""
    return np.zeros((1, sum(term_sizes(graphs.score_terms, outputs))), np.float32)


def _each_term(graphs: Graphs, activation: Activation, outputs: int) -> ScoreMatrix | None:
    """A score of each term that the scorers have, to compare; None where they have none."""
    terms = [term for term in TERMS if term in graphs.score_terms]
    if not terms:
        return None
    generator = np.random.default_rng(0)
    weights = {}
    for row, (term, size) in enumerate(zip(terms, term_sizes(terms, outputs), strict=True)):
        weights[term] = np.zeros((len(terms), size))
        drawn = generator.standard_normal(size)
        weights[term][row] = (drawn / np.abs(drawn).sum()).astype(np.float32)
    return ScoreMatrix(weights, activation, outputs, len(terms))


def _all_scores(
    graphs: Graphs,
    scorer: Session,
    image: NDArray[np.float32],
    maps: NDArray[np.float32],
    channels: NDArray[np.int64],
    *,
    columns: NDArray[np.int64],
    score: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """As `run_scorer`; with graphs of fixed shapes one score at a time, in the last columns."""
    if graphs.static_batch is None or len(score) == 1:
        return run_scorer(scorer, image, maps, channels, columns=columns, score=score)
    count = len(score)
    asked = [columns[:-count], *(columns[-count : len(columns) - count + 1] for _ in score)]
    rows = [score[:1], *(score[index : index + 1] for index in range(count))]
    runs = [
        run_scorer(scorer, image, maps, channels, columns=some, score=row)
        for some, row in zip(asked, rows, strict=True)
    ]
    logits, probabilities = (np.concatenate(values, axis=1) for values in zip(*runs, strict=True))
    return logits, probabilities


def run_scorer(
    scorer: Session,
    image: NDArray[np.float32],
    maps: NDArray[np.float32],
    channels: NDArray[np.int64],
    *,
    columns: NDArray[np.int64],
    score: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run a scorer once: logits and probabilities in the columns asked for, of an image masked by B channels.

    Args:
        scorer: of any kind.
        image: float32 [1,C,H,W], preprocessed.
        maps: float32 [C,h,w].
        channels: int64 [B].
        columns: int64 [K], of which those from the number of the model's classes on are its scores.
        score: float32 [S,U], the weights of scores; scorers of older bundles have none, and ignore them.

    Returns:
        Two arrays float32 [B,K].

    Raises:
        BundleError: the scorer returns something else.
    """
    feeds: dict[str, NDArray[Any]] = {
        "image": image,
        "maps": maps[None],
        "channels": channels.astype(np.int64),  # numpy's own index has 32 bits on 32-bit processors
        "targets": columns.astype(np.int64),
        "scale": np.ones(len(channels), np.float32),
        "noise": image,
        "sigma": np.full(len(channels), _NOISE, np.float32),
        "keep": np.ones(len(channels), np.float32),
        "baseline": np.zeros(len(columns), np.float32),
        "logit_softmax": np.array(False),
        "score": score,
    }
    logits, probabilities = scorer.run(feeds, ["logits", "probabilities"])
    for name, value in (("logits", logits), ("probabilities", probabilities)):
        check_rows(f"{name} of masked images", value, len(channels), len(columns))
    return logits, probabilities


def relative_difference(value: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Compute max |value - expected| / max |expected|; infinite for another shape or a value that is not finite."""
    if value.shape != expected.shape or not np.isfinite(value).all():
        return float("inf")
    return float(np.abs(value - expected).max() / max(float(np.abs(expected).max()), 1e-12))
