"""The classifier inside a bundle, run by an engine: clean pass, head, baseline, logits of many inputs, scorers."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Bundle, Graphs
from ortcam.engine.base import Engine, Session, closed_error
from ortcam.engine.batching import BatchSize, BatchSizer, limited_sizer, pad_rows, run_batches, searching_sizer
from ortcam.engine.features import CleanPass, as_maps, check_features, check_finite, check_rows, to_probabilities
from ortcam.engine.memory import MemoryLimit, RowMemory
from ortcam.engine.runtime import readable_errors
from ortcam.errors import BundleError

__all__ = [
    "GATED_OUTPUTS",
    "MOST_PIXELS",
    "SCORER_OUTPUTS",
    "Model",
    "classify",
    "classify_only",
    "run_head",
]

SCORER_OUTPUTS: Final = ("probabilities", "logits")
GATED_OUTPUTS: Final = (*SCORER_OUTPUTS, "partial_maps")

# Pixels of the inputs that are made for one run, 12 bytes each: 2 GB.
MOST_PIXELS: Final = 2**31 // 12

_Kept = TypeVar("_Kept")


class Model:
    """The graphs of a bundle as functions. Any number of threads may use one at once.

    Attributes:
        bundle: whose graphs.
        precision: of the scorers, as the bundle calls it.
        low_memory: whether one row at a time is run where the batch size is "auto".
        limit: of the process's memory, under which batches grow from one row; None: there is none.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        precision: str | None = None,
        low_memory: bool = False,
        limit: MemoryLimit | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            bundle: that was read.
            engine: opens its graphs; `close` closes it.
            precision: of the scorers; None takes that of the bundle's own graphs.
            low_memory: see the attribute.
            limit: see the attribute.

        Raises:
            OptionError: no precision of this name.
            BundleError: the bundle has no scorers in it.
        """
        self.bundle = bundle
        self.precision = bundle.check_precision(precision)
        self._engine = engine
        self.low_memory = low_memory
        self.limit = limit
        self._closed = False
        self._sizers: dict[tuple[str, BatchSize], BatchSizer] = {}
        self._clean: tuple[NDArray[np.float32], CleanPass] | None = None
        self._kept: dict[str, object] = {}

    @property
    def engine(self) -> Engine:
        """What opens and runs the graphs."""
        return self._engine

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def check_open(self) -> None:
        """Refuse every use after `close`.

        Raises:
            ClosedError: it was closed.
        """
        if self._closed:
            raise closed_error(self.bundle)

    def close(self) -> None:
        """Release the engine's sessions and weights. Runs in other threads finish."""
        self._closed = True
        self._clean = None
        self._kept = {}
        self._engine.close()

    def open(self, graph: str) -> Session:
        """Open a graph of the bundle by its file name. It is opened once.

        Raises:
            ClosedError: the model is closed.
            OrtcamError: as `Engine.open`.
        """
        self.check_open()
        return self._engine.open(graph)

    @property
    def features(self) -> Session:
        """The graph from image to features."""
        return self.open(self.bundle.manifest.graphs.features)

    @property
    def head(self) -> Session:
        """The graph from features to logits. The bundle must have one (`manifest.graphs.head`)."""
        graph = self.bundle.manifest.graphs.head
        assert graph is not None  # checked before
        return self.open(graph)

    def scorer(self, kind: str) -> Session:
        """The graph that masks an image and scores it, in this model's precision.

        Args:
            kind: of mask, as `Plan.scorer` calls it.

        Raises:
            BundleError: the bundle has no such scorer.
        """
        return self.open(self.bundle.scorer(kind, self.precision).name)

    def clean_pass(self, model_input: NDArray[np.float32]) -> CleanPass:
        """Features, maps, logits and probabilities of an image as it is. Those of the last input are kept.

        Args:
            model_input: float32 [1,C,H,W], preprocessed. The same array object is not run twice in a row.

        Raises:
            BundleError: the model has another number of outputs than the bundle says.
            NotFiniteError: a feature or a logit is infinite or not a number.
        """
        self.check_open()
        last = self._clean
        if last is not None and last[0] is model_input:
            return last[1]
        manifest = self.bundle.manifest
        features = self.layers(model_input)
        logits = run_head(manifest.graphs, self.open, model_input, features["features"])
        if len(logits[0]) != manifest.outputs:
            raise BundleError(
                f"{self.bundle.path}: its model has {len(logits[0])} classes, and bundle.json has {manifest.outputs} "
                "labels; accepted is one per class"
            )
        check_finite("features and logits of the image", *features.values(), logits)
        if self.limit is not None:
            self.limit.check("computed the features of an image")
        maps = as_maps(features["features"], manifest.cut)
        clean = CleanPass(features, maps, logits[0], to_probabilities(logits[0], manifest.activation))
        for array in (*features.values(), clean.maps, clean.logits, clean.probabilities):
            array.setflags(write=False)  # other runs use them, too
        if not self._closed:
            self._clean = model_input, clean
        return clean

    def head_logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of altered features [B,...], in the layout of the cut: float32 [B,outputs].

        Raises:
            OutOfMemoryError: the run did not fit into memory.
            ProviderError: whatever else ONNX Runtime could not do.
            BundleError: the head gives something else.
        """
        with self.head.bind(("logits",)) as bound:
            bound.put("features", features)
            logits: NDArray[np.float32]
            (logits,) = bound.run()
        check_rows("logits of altered features", logits, len(features), self.bundle.manifest.outputs)
        return logits

    def layers(self, model_input: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The features of all layers by the names of `Manifest.cuts`, of preprocessed images: float32 [N,*cut.shape].

        Raises:
            BundleError: the graph gives something else.
        """
        cuts = self.bundle.manifest.cuts
        found = run_features(self.bundle.manifest.graphs, self.open, model_input, tuple(cuts))
        for value, (name, cut) in zip(found, cuts.items(), strict=True):
            check_features(name, value, len(model_input), cut)
        return dict(zip(cuts, found, strict=True))

    def gradients(
        self, seeds: NDArray[np.float32], inputs: Mapping[str, NDArray[np.float32]], layers: Sequence[int]
    ) -> tuple[NDArray[np.float32], ...]:
        """d(sum_c seed_c logit_c) / d features, float32 [K,*cut.shape] per layer; one run of the gradient graph.

        Args:
            seeds: float32 [K,outputs].
            inputs: features of all layers by name, and "image": float32 [N,...] with N = 1 for all seeds, or N = K.
            layers: which of `Manifest.cuts`, by place; 0 is the bundle's cut.

        Raises:
            OrtcamError: as `gradient_outputs`; or the graph gives something else.
        """
        found = self.gradient_outputs(seeds, inputs, [f"gradient_{i}" if i else "gradient" for i in layers])
        cuts = tuple(self.bundle.manifest.cuts.values())
        for value, place in zip(found, layers, strict=True):
            check_features("gradients", value, len(seeds), cuts[place])
        return found

    def gradient_outputs(
        self, seeds: NDArray[np.float32], inputs: Mapping[str, NDArray[np.float32]], names: Sequence[str]
    ) -> tuple[NDArray[np.float32], ...]:
        """Any outputs of the gradient graph, which the bundle must have (`manifest.gradient`); else as `gradients`.

        Raises:
            OutOfMemoryError: the run did not fit into memory.
            ProviderError: whatever else ONNX Runtime could not do.
            NotFiniteError: a value is infinite or not a number.
        """
        gradient = self.bundle.manifest.gradient
        assert gradient is not None  # checked before
        given = {"seed": seeds} | {name: inputs[name] for name in gradient.inputs}
        opened = self.open(gradient.graph)
        with readable_errors("run the gradient"):
            found = opened.run(given, names)
        check_finite("gradients of the logits", *found)
        return found

    def empty_image_probabilities(self, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        """p(0)[c], float32 [K]: probabilities of the classes int64 [K] for an input that is zero everywhere."""
        return to_probabilities(self.blank_logits(), self.bundle.manifest.activation)[targets]

    def blank_logits(self) -> NDArray[np.float32]:
        """The logits for an input that is zero everywhere: float32 [outputs].

        Raises:
            NotFiniteError: a logit is infinite or not a number.
        """
        manifest = self.bundle.manifest
        image = manifest.preprocessing
        empty = np.zeros((1, image.channels, image.height, image.width), np.float32)
        _, logits = classify(manifest.graphs, self.open, empty)
        check_rows("logits of the empty image", logits, 1, manifest.outputs)
        check_finite("logits of the empty image", logits)
        blank: NDArray[np.float32] = logits[0]
        return blank

    def logits(
        self,
        count: int,
        inputs: Callable[[slice], NDArray[np.float32]],
        *,
        batch_size: BatchSize = "auto",
        most_pixels: int = MOST_PIXELS,
    ) -> NDArray[np.float32]:
        """Logits of many inputs that are never in memory together: float32 [count,outputs].

        Args:
            count: how many inputs.
            inputs: makes the inputs of a slice, preprocessed: float32 [n,C,H,W].
            batch_size: inputs per run, or "auto".
            most_pixels: of the inputs of one run, in three channels, whatever the batch size says.

        Raises:
            NotFiniteError: a logit is infinite or not a number.
            OutOfMemoryError: not even one fits into the memory of the device.
            ProviderError: whatever else ONNX Runtime could not do.
        """
        graphs, classes = self.bundle.manifest.graphs, self.bundle.manifest.outputs
        first = self.open(graphs.features if graphs.head else graphs.classifier or "")
        if batch_size != "auto":
            image = self.bundle.manifest.preprocessing
            most = 3 * most_pixels // (max(image.channels, 3) * image.height * image.width)
            batch_size = min(int(batch_size), max(1, most))
        parts: list[NDArray[np.float32]] = []
        for done in run_batches(
            count,
            self.sizer("classifier", first, batch_size),
            lambda batch: pad_rows(inputs(batch.rows), batch.padded),
            lambda images: classify_only(graphs, self.open, images),
        ):
            check_rows("logits", done.result, done.batch.padded, classes)
            logits = done.result[: done.batch.size]
            check_finite("logits of the image or of altered ones", logits)
            parts.append(logits)
        return np.concatenate(parts) if parts else np.zeros((0, classes), np.float32)

    def sizer(self, kind: str, session: Session, batch_size: BatchSize) -> BatchSizer:
        """The batch sizes of a graph. A search goes on from one explanation to the next.

        Args:
            kind: of scorer, or "classifier".
            session: of the graph.
            batch_size: that was asked for.
        """
        sizer = self._sizers.get((kind, batch_size))
        if sizer is None:  # of two threads that come here at once the first one's stays
            sizer = self._sizers.setdefault((kind, batch_size), self._new_sizer(kind, session, batch_size))
        return sizer

    def _new_sizer(self, kind: str, session: Session, batch_size: BatchSize) -> BatchSizer:
        fixed_shape = session.fixed_shape
        if (static := self.bundle.manifest.graphs.static_batch) is not None:
            memory = None if self.limit is None else RowMemory(self.limit, arena=not self.low_memory)
            return BatchSizer([static], fixed_shape=True, memory=memory, least=static)
        if self.limit is not None:
            return limited_sizer(batch_size, self.limit, fixed_shape=fixed_shape, arena=not self.low_memory)
        if batch_size != "auto" or self.low_memory:
            return BatchSizer([1 if batch_size == "auto" else batch_size], fixed_shape=fixed_shape)
        speed = self._engine.speed_key
        key = json.dumps([self.bundle.sha256, kind, self.precision, session.providers, speed])
        return searching_sizer(None if speed is None else key, fixed_shape=fixed_shape, on_gpu=session.on_gpu)

    def keep(self, what: str, make: Callable[[], _Kept]) -> _Kept:
        """Something that is found once for all images and threads, such as the head as one linear layer.

        Args:
            what: its name.
            make: finds it. It runs once, or again if it raises. It may run user code (`progress`): no lock is held, so
                two threads that ask at the same time may both run it.
        """
        kept = self._kept  # `close` puts another in its place
        if what not in kept:
            made = make()
            self.check_open()
            kept[what] = made
        found: _Kept = kept[what]  # type: ignore[assignment]
        return found


def classify(
    graphs: Graphs, session: Callable[[str], Session], images: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features and logits of preprocessed images.

    Args:
        graphs: of the bundle; where there is no head the logits take a pass of the whole model.
        session: opens a graph by its file name.
        images: float32 [N,C,H,W].

    Returns:
        Features, float32 in the layout of the cut, and logits, float32 [N,outputs].

    Raises:
        OutOfMemoryError: a run did not fit into memory.
        ProviderError: whatever else ONNX Runtime could not do.
        BundleError: the graphs give something else than a row of logits an image.
    """
    (features,) = run_features(graphs, session, images, ("features",))
    return features, run_head(graphs, session, images, features)


def run_features(
    graphs: Graphs, session: Callable[[str], Session], images: NDArray[np.float32], names: Sequence[str]
) -> tuple[NDArray[np.float32], ...]:
    """Features of preprocessed images, float32 [N,...] per name: the first half of `classify`."""
    opened = session(graphs.features)
    with readable_errors("run the features"):
        return opened.run({"image": images}, names)


def run_head(
    graphs: Graphs, session: Callable[[str], Session], images: NDArray[np.float32], features: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Logits of preprocessed images by their features, or by the whole model where there is no head: [N,outputs]."""
    logits: NDArray[np.float32]
    assert graphs.head is not None or graphs.classifier is not None  # checked when the bundle is read
    opened = session(graphs.head or graphs.classifier or "")
    with readable_errors("run the classifier" if graphs.head is None else "run the head"):
        inputs = {"image": images} if graphs.head is None or features is None else {"features": features}
        (logits,) = opened.run(inputs, ["logits"])
    check_rows("logits", logits, len(images))
    return logits


def classify_only(
    graphs: Graphs, session: Callable[[str], Session], images: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The logits alone, float32 [N,outputs], with one pass of the whole model where there is no head.

    Raises:
        OutOfMemoryError: a run did not fit into memory.
        ProviderError: whatever else ONNX Runtime could not do.
        BundleError: the graphs give something else than a row of logits an image.
    """
    if graphs.head is not None:
        return classify(graphs, session, images)[1]
    return run_head(graphs, session, images, None)
