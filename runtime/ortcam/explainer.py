"""The way of the data: photograph, features and logits, targets, masks, scores, weights, map, `Explanation`."""

import dataclasses
import difflib
import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam._version import __version__
from ortcam.bundle import Bundle, read_bundle
from ortcam.classifier import as_maps, classify, prefix_tokens, to_probabilities
from ortcam.errors import OptionError, TargetError
from ortcam.explanation import Explanation, Stats
from ortcam.head_methods import Head, HeadScores, LinearHead, ablation_cam, cam, eigen_cam, live_channels, recipro_cam
from ortcam.image import DEFAULT_MAX_PIXELS, read_image
from ortcam.methods import METHODS, HeadPlan, Plan, Settings, resolve_method
from ortcam.scoring import Masks, Progress, Scores, prepare_masks, score_channels
from ortcam.session import Bound, Provider, Session, SessionOptions, open_session, resolve_providers, runtime_version
from ortcam.upsampling import upsample

__all__ = ["Explainer", "Image", "Target", "load"]

Image = str | os.PathLike[str] | bytes | NDArray[np.uint8]
Target = int | str

DEFAULT_BATCH_SIZE: Final = 32
_GATED_OUTPUTS: Final = ("probabilities", "logits", "partial_maps")


def load(
    bundle: str | os.PathLike[str],
    *,
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> "Explainer":
    """Open a bundle for explaining.

    Args:
        bundle: folder written by `ortcam export`; its schema and hashes are checked first.
        providers: ONNX Runtime execution providers, names or (name, options) pairs, in order of preference; short names
            such as "cuda" are accepted. By default CUDA where this ONNX Runtime has it, then the CPU.
        threads: threads inside an operator on the CPU; None takes the physical cores.
        max_pixels: images with more pixels are refused before they are decoded.

    Raises:
        BundleError: the bundle cannot be trusted or read.
        ProviderError: a provider that this ONNX Runtime does not have.
        OptionError: `threads` below 1.
    """
    options = SessionOptions(resolve_providers(providers), threads)
    return Explainer(read_bundle(bundle), options, max_pixels=max_pixels)


class Explainer:
    """A classifier with its explanations: one bundle, its sessions opened when first needed and then kept.

    Not meant to be shared between threads: a run uses inputs that are kept in place.
    """

    def __init__(self, bundle: Bundle, options: SessionOptions, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self.bundle = bundle
        self._options = options
        self._max_pixels = max_pixels
        self._sessions: dict[str, Session] = {}
        self._linear_head: LinearHead | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """One name a class, in the order of the logits."""
        return self.bundle.manifest.labels

    def preprocess(self, image: Image) -> NDArray[np.float32]:
        """What the model sees: float32 [1,3,H,W].

        Args:
            image: path, encoded bytes, or uint8 RGB [H0,W0,3].

        Raises:
            ImageError: missing, not an image, truncated or too large.
        """
        return self.bundle.manifest.preprocessing(read_image(image, max_pixels=self._max_pixels))

    def predict(self, image: Image) -> NDArray[np.float32]:
        """Probabilities of the classes: float32 [classes].

        Raises:
            ImageError: missing, not an image, truncated or too large.
        """
        _, probabilities = self._clean_pass(self.preprocess(image))
        return probabilities

    def explain(
        self,
        image: Image,
        *,
        method: str = "scorecam++",
        target: Target | Iterable[Target] | None = None,
        top_k: int = 1,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
        **options: object,
    ) -> Explanation:
        """Explain why the model gives an image its classes; any number of them costs the same forward passes.

        Args:
            image: path, encoded bytes, or uint8 RGB [H0,W0,3].
            method: "scorecam", "scorecam++", "sscam" or "iscam"; "recipro-cam", "ablation-cam", "eigen-cam" or "cam".
            target: class index, label, or several of them; None takes the `top_k` most probable classes.
            top_k: how many classes where no target is given.
            batch_size: masked images, or altered features, a run of the graph; changes time and memory, not the result.
            progress: called as progress(passes made, passes in all) after every run of the graph.
            **options: of the method; see `ortcam.methods.METHODS`.

        Raises:
            ImageError: missing, not an image, truncated or too large.
            OptionError: an unknown method or option, a value that is not accepted, or a method that this bundle's head
                does not allow.
            TargetError: a class that the model does not have, or a label that names none or several.
        """
        clock = _Clock()
        settings = resolve_method(method, options)
        plan = settings.plan
        if not isinstance(batch_size, int) or batch_size < 1:
            raise OptionError(f"batch_size={batch_size!r}: accepted is a whole number from 1")
        if isinstance(plan, HeadPlan):
            return self._explain_with_head(image, settings, plan, target, top_k, batch_size, progress, clock)
        picture = read_image(image, max_pixels=self._max_pixels)
        model_input = self.bundle.manifest.preprocessing(picture)
        clock.lap("decode")
        features, probabilities = self._clean_pass(model_input)
        targets = self._resolve_targets(target, top_k, probabilities)
        clock.lap("features")
        masks = prepare_masks(features, plan, height=model_input.shape[2], width=model_input.shape[3])
        clock.lap("prepare")
        scores, providers = self._score(model_input, masks, plan, targets, batch_size, progress)
        clock.lap("scoring")
        raw = _raw_maps(features, masks, plan, scores)
        maps, flat = _finish(raw, *model_input.shape[2:])
        clock.lap("map")
        return Explanation(
            method=settings.method.name,
            title=settings.method.title,
            options=settings.options,
            targets=tuple(int(index) for index in targets),
            labels=tuple(self.labels[index] for index in targets),
            probabilities=probabilities[targets],
            maps=maps,
            raw_maps=raw.astype(np.float32),
            weights=scores.weights.astype(np.float32),
            flat=flat,
            image=picture,
            preprocessing=self.bundle.manifest.preprocessing,
            stats=Stats(
                providers=providers,
                batch_size=batch_size,
                channels=len(features),
                live_channels=len(masks.order),
                passes=scores.passes,
                runs=scores.chunks,
                seconds=clock.total(),
                seconds_by_stage=clock.laps,
            ),
            provenance=self._provenance(image),
        )

    def _explain_with_head(
        self,
        image: Image,
        settings: Settings,
        plan: HeadPlan,
        target: Target | Iterable[Target] | None,
        top_k: int,
        batch_size: int,
        progress: Progress | None,
        clock: "_Clock",
    ) -> Explanation:
        """`explain` for the methods that mask no image."""
        manifest = self.bundle.manifest
        if settings.method.needs_head and manifest.graphs.head is None:
            others = ", ".join(method.name for method in METHODS if not method.needs_head)
            raise OptionError(
                f"{settings.method.name}: needs the head of the classifier, and this bundle has none, since its layer "
                f"lies inside a branch; methods that work here: {others}"
            )
        picture = read_image(image, max_pixels=self._max_pixels)
        model_input = manifest.preprocessing(picture)
        clock.lap("decode")
        features, logits = classify(manifest.graphs, self._session, model_input)
        probabilities = to_probabilities(logits[0], manifest.activation)
        targets = self._resolve_targets(target, top_k, probabilities)
        clock.lap("features")
        maps = as_maps(features, manifest.cut)
        clock.lap("prepare")
        head = Head(self._run_head, manifest.cut, manifest.activation, batch_size, progress)
        scores = self._head_scores(plan, head, features, maps, logits[0], targets)
        clock.lap("scoring")
        finished, flat = _finish(scores.raw, *model_input.shape[2:])
        clock.lap("map")
        session = self._session(
            manifest.graphs.head if head.runs and manifest.graphs.head else manifest.graphs.features
        )
        return Explanation(
            method=settings.method.name,
            title=settings.method.title,
            options=settings.options,
            targets=tuple(int(index) for index in targets),
            labels=tuple(self.labels[index] for index in targets),
            probabilities=probabilities[targets],
            maps=finished,
            raw_maps=scores.raw.astype(np.float32),
            weights=scores.weights.astype(np.float32),
            flat=flat,
            image=picture,
            preprocessing=manifest.preprocessing,
            stats=Stats(
                providers=tuple(session.get_providers()),
                batch_size=batch_size,
                channels=len(maps),
                live_channels=int(live_channels(maps).sum()),
                passes=0,
                runs=head.runs,
                seconds=clock.total(),
                seconds_by_stage=clock.laps,
                head_passes=head.passes,
            ),
            provenance=self._provenance(image),
        )

    def _head_scores(
        self,
        plan: HeadPlan,
        head: Head,
        features: NDArray[np.float32],
        maps: NDArray[np.float32],
        logits: NDArray[np.float32],
        targets: NDArray[np.int64],
    ) -> HeadScores:
        if plan.kind == "eigen":
            return eigen_cam(maps, classes=len(targets), center=plan.center)
        if plan.kind == "cam":
            return cam(maps, self._as_linear(head), targets=targets)
        prefix = prefix_tokens(features, head.cut)
        if plan.kind == "recipro":
            return recipro_cam(maps, prefix, head, targets=targets, kernel=plan.kernel, score=plan.score)
        return ablation_cam(maps, prefix, head, logits=logits, targets=targets, score=plan.score)

    def _as_linear(self, head: Head) -> LinearHead:
        """The head as one linear layer; found once for all images and classes.

        Raises:
            OptionError: it is something else.
        """
        if self._linear_head is None:
            self._linear_head = LinearHead.recover(head)
        if not self._linear_head.is_exact:
            raise OptionError(
                "cam: the head of this classifier is not average pooling and one linear layer (as such it would be off "
                f"by {self._linear_head.difference:.1e}, relative), so there are no weights to take; recipro-cam and "
                "ablation-cam work with any head"
            )
        return self._linear_head

    def _run_head(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self.bundle.manifest.graphs.head is not None  # checked before
        bound = Bound(self._session(self.bundle.manifest.graphs.head), outputs=("logits",))
        bound.put("features", features)
        logits: NDArray[np.float32]
        (logits,) = bound.run()
        return logits

    def _session(self, name: str) -> Session:
        if name not in self._sessions:
            self._sessions[name] = open_session(self.bundle.file(name), self._options)
        return self._sessions[name]

    def _clean_pass(self, model_input: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Maps, float32 [C,h,w], and probabilities, float32 [classes], of an input, float32 [1,3,H,W]."""
        manifest = self.bundle.manifest
        features, logits = classify(manifest.graphs, self._session, model_input)
        return as_maps(features, manifest.cut), to_probabilities(logits[0], manifest.activation)

    def _score(
        self,
        model_input: NDArray[np.float32],
        masks: Masks,
        plan: Plan,
        targets: NDArray[np.int64],
        batch_size: int,
        progress: Progress | None,
    ) -> tuple[Scores, tuple[str, ...]]:
        session = self._session(self.bundle.scorer(plan.scorer).name)
        baseline = np.zeros(len(targets), np.float32)
        if plan.baseline and plan.weighting == "probability":
            baseline = self._clean_pass(np.zeros_like(model_input))[1][targets]
        scores = score_channels(
            Bound(session, outputs=_GATED_OUTPUTS if plan.gate else _GATED_OUTPUTS[:2]),
            image=model_input,
            masks=masks,
            plan=plan,
            targets=targets,
            baseline=baseline,
            batch_size=batch_size,
            progress=progress,
        )
        return scores, tuple(session.get_providers())

    def _resolve_targets(
        self, target: Target | Iterable[Target] | None, top_k: int, probabilities: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        classes = len(self.labels)
        if not isinstance(top_k, int) or not 1 <= top_k <= classes:
            raise TargetError(f"top_k={top_k!r}: accepted is a whole number from 1 to {classes}, the model's classes")
        if target is None:
            return np.argsort(-probabilities, kind="stable")[:top_k].astype(np.int64)
        if top_k != 1:
            raise TargetError(f"top_k={top_k} with target={target!r}: give one or the other")
        wanted = list(target) if isinstance(target, Iterable) and not isinstance(target, str) else [target]
        if not wanted:
            raise TargetError("target is empty: accepted is a class index, a label, or several of them")
        indices = [self.class_index(item) for item in wanted]
        return np.array(list(dict.fromkeys(indices)), np.int64)

    def class_index(self, target: Target) -> int:
        """The index of a class given by index or label (any case, underscores for spaces).

        Raises:
            TargetError: no such class, or several of this name.
        """
        classes = len(self.labels)
        if isinstance(target, (int, np.integer)) and not isinstance(target, bool):
            if not 0 <= target < classes:
                raise TargetError(f"target {target}: the model has classes 0 to {classes - 1}")
            return int(target)
        if not isinstance(target, str):
            raise TargetError(f"target {target!r}: accepted is a class index or a label")
        named = [index for index, label in enumerate(self.labels) if _plain(label) == _plain(target)]
        if len(named) == 1:
            return named[0]
        if named:
            raise TargetError(f"target {target!r} names the classes {', '.join(map(str, named))}: give the index")
        close = difflib.get_close_matches(_plain(target), [_plain(label) for label in self.labels], n=3)
        hint = f"; did you mean {', '.join(map(repr, close))}?" if close else ""
        raise TargetError(f"target {target!r}: no class of the model has this label (0 to {classes - 1}){hint}")

    def _provenance(self, image: Image) -> dict[str, Any]:
        manifest = self.bundle.manifest
        return {
            "image": _image_record(image),
            "bundle": {"name": self.bundle.path.resolve().name, "sha256": self.bundle.sha256},
            "model": dataclasses.asdict(manifest.model),
            "cut": dataclasses.asdict(manifest.cut),
            "activation": manifest.activation,
            "preprocessing": dataclasses.asdict(manifest.preprocessing),
            "requested_providers": [[name, dict(values)] for name, values in self._options.providers],
            "threads": self._options.threads,
            "versions": {"ortcam": __version__, "onnxruntime": runtime_version(), "numpy": np.__version__},
        }


class _Clock:
    """Wall time of named stages."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now

    def total(self) -> float:
        return time.perf_counter() - self._start


def _raw_maps(features: NDArray[np.float32], masks: Masks, plan: Plan, scores: Scores) -> NDArray[np.float64]:
    """The weighted sum before ReLU: float64 [K,H,W] where gated maps are summed, else [K,h,w] since U is linear."""
    if plan.gate_sum:
        if scores.gated_sum is None:
            shape = (len(scores.weights), *masks.maps.shape[1:])
            return np.zeros(shape)
        return scores.gated_sum
    summed = masks.maps if plan.maps == "normalized" else features
    raw: NDArray[np.float64] = np.tensordot(scores.weights, summed.astype(np.float64), axes=1)
    return raw


def _finish(raw: NDArray[np.float64], height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """ReLU at image size and min-max: float32 [K,H,W] in [0,1], and bool [K] for the maps that are flat.

    Flat means no range beyond the rounding of the sum in float32.
    """
    upsampled = raw if raw.shape[1:] == (height, width) else upsample(raw, height, width)
    positive = np.maximum(upsampled, 0)
    low = positive.min(axis=(1, 2), keepdims=True)
    span = positive.max(axis=(1, 2), keepdims=True) - low
    scale = np.abs(upsampled).max(axis=(1, 2), keepdims=True)
    flat = span <= 8 * np.finfo(np.float32).eps * scale
    maps = np.where(flat, 0, (positive - low) / np.where(flat, 1, span))
    return maps.astype(np.float32), flat[:, 0, 0]


def _plain(label: str) -> str:
    return label.replace("_", " ").strip().lower()


def _image_record(image: Image) -> dict[str, Any]:
    if isinstance(image, np.ndarray):
        return {"path": None, "sha256": None, "pixels_sha256": hashlib.sha256(image.tobytes()).hexdigest()}
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:  # noqa: PTH123 - any path-like
            return {"path": os.fspath(image), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return {"path": None, "sha256": hashlib.sha256(image).hexdigest()}
