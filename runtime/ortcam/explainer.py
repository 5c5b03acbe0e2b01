"""Data flow of an explanation: image, features and logits, targets, masks, scores, weights, map, `Explanation`."""

import contextlib
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from ortcam._version import __version__
from ortcam.bundle import Bundle, open_bundle, read_bundle
from ortcam.engine.batching import CPU_CANDIDATES, GPU_CANDIDATES, ChunkSizes, recall, remember
from ortcam.engine.memory import give_back
from ortcam.engine.model import (
    as_maps,
    check_finite,
    check_rows,
    classify,
    classify_only,
    prefix_tokens,
    to_probabilities,
)
from ortcam.engine.processors import processor_name, usable_cores
from ortcam.engine.session import (
    Bound,
    Provider,
    Session,
    SessionOptions,
    SharedSession,
    resolve_providers,
    runtime_version,
    share_session,
)
from ortcam.errors import (
    BundleError,
    ClosedError,
    ImageError,
    OptionError,
    OrtcamError,
    OutOfMemoryError,
)
from ortcam.images.arrays import ArrayLike, is_array, is_pillow
from ortcam.images.decoding import DEFAULT_MAX_PIXELS, check_max_pixels, check_strict, check_white
from ortcam.images.inputs import expand
from ortcam.images.photograph import Image, Photograph, read_ahead, read_photograph, read_preprocessed
from ortcam.methods import (
    Head,
    HeadInputs,
    LinearHead,
    Plan,
    active_channels,
)
from ortcam.models.export_options import ExportOptions, check_options
from ortcam.models.opening import bundle_of, log
from ortcam.request import (
    BatchSize,
    ExplainRequest,
    Target,
    as_top_k,
    check_batch_size,
    class_index,
    most_probable,
)
from ortcam.results.explanation import Explanation, Stats
from ortcam.scoring.budget import Progress, score
from ortcam.scoring.limits import Completion
from ortcam.scoring.loop import Scoring
from ortcam.scoring.maps import finish, raw_maps
from ortcam.scoring.masks import Masks, prepare_masks
from ortcam.scoring.pace import Pace
from ortcam.scoring.scores import Scores

if TYPE_CHECKING:
    import torch

__all__ = [
    "Explainer",
    "Image",
    "Prediction",
    "load",
]

_HEAD_BATCH_SIZE: Final = 32
_MOST_PIXELS_A_RUN: Final = 2**31 // 12  # of inputs that are made for one run, 12 bytes each
_GATED_OUTPUTS: Final = ("probabilities", "logits", "partial_maps")


@dataclasses.dataclass(frozen=True, repr=False)
class Prediction:
    """A class that the model gives an image.

    Attributes:
        index: of the class.
        label: its name.
        probability: in [0,1].
    """

    index: int
    label: str
    probability: float

    def __repr__(self) -> str:
        return f"<Prediction {self.label!r} ({self.index}), {self.probability:.2%}>"


def load(
    model: "str | os.PathLike[str] | Bundle | torch.nn.Module",
    *,
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    white: int | None = None,
    strict: bool = False,
    low_memory: bool = False,
    precision: str | None = None,
    **export_options: Unpack[ExportOptions],
) -> "Explainer":
    """Open a model for explaining.

    Args:
        model: a bundle: the folder that `ortcam export` wrote, or what `read_bundle` returned; or "shapes", the model
            that ortcam ships. Its schema and hashes are checked first. What was checked is kept in memory and is what
            runs, whatever becomes of the folder.
            Or a model to export: a torchvision name, `package.module:callable`, FILE.onnx, FILE.pt2, or a PyTorch
            module. It is exported once into the user's cache (`ortcam cache`), and again when anything that it was made
            of changes.
        providers: ONNX Runtime execution providers, names or (name, options) pairs, in order of preference; short names
            such as "cuda" are accepted. By default CUDA where this ONNX Runtime has it, then the CPU.
        threads: threads inside an operator on the CPU; None takes the physical cores that this process may use.
        max_pixels: images with more pixels are refused before they are decoded, and files that would take more than
            60 MB and 12 bytes per pixel of this number; `images.decoding.read_image` has the details.
        white: the sample that is white in PNG, TIFF and PNM images of 16 bits, such as 4095 for 12 bits; None:
            65535, with a warning where that leaves an image dark.
        strict: refuse damaged images that can be read in part, instead of warning.
        low_memory: for small devices: memory is given back after every run, `batch_size="auto"` is 1, and the weights
            are read and checked again whenever a session is opened: an error if the folder has changed. Slower.
        precision: what the masked passes compute in, "float32", "float16" or "int8" where the bundle has it; None takes
            that of the bundle's own graphs. Features and the probabilities of the clean image are the same in all.
        **export_options: what `ortcam_export.export` takes, for a model that is no bundle: `labels`, `preset`,
            `input_size`, `mean`, `std`, `checkpoint`, `layer` and more (`models.export_options.ExportOptions`).

    Example:
        ```python
        ortcam.load("shapes").explain("mug.png").save("out")
        ortcam.load("resnet18").explain("cat.jpg").save("out")
        ortcam.load("model.onnx", preset="imagenet", labels="labels.txt")
        ```

    Raises:
        OrtcamError: the model cannot be exported, or what its export needs is not installed.
        BundleError: the bundle cannot be trusted or read, or has no scorers in this precision.
        ProviderError: a provider that this ONNX Runtime does not have.
        OptionError: `threads`, `max_pixels` or `white` out of its range (`support.ranges`), `strict` neither True nor
            False, or no precision of this name.
    """
    options = SessionOptions(resolve_providers(providers), threads, low_memory)
    max_pixels, white, strict = check_max_pixels(max_pixels), check_white(white), check_strict(strict)
    held: object = None  # until the explainer holds it
    if isinstance(model, Bundle):
        check_options(export_options, of_bundle=str(model.path))
        opened = model
    else:
        folder = bundle_of(model, check_options(export_options), precision=precision, announce=log)
        if low_memory:
            opened = read_bundle(folder)
        else:
            opened, held = open_bundle(folder, precision)
    explainer = Explainer(opened, options, max_pixels=max_pixels, white=white, strict=strict, precision=precision)
    del held
    return explainer


class Explainer:
    """Predicts and explains with one bundle. `ortcam.load` makes it.

    Sessions are opened when they are first needed, and kept. Give each thread an explainer of its own, since a run
    writes to inputs that are kept in place. That costs little: explainers of one model share its weights and, on the
    CPU, its sessions.

    A pickle is a reference: the path of the folder and the hash of its bundle.json, which is checked again on
    unpickling. A copy is a new explainer of the same bundle.

    ```python
    with ortcam.load("resnet18.ortcam") as explainer:
        explanation = explainer.explain("cat.jpg")
    ```
    """

    def __init__(
        self,
        bundle: Bundle,
        options: SessionOptions,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        white: int | None = None,
        strict: bool = False,
        precision: str | None = None,
    ) -> None:
        self.bundle = bundle
        self._precision = bundle.check_precision(precision)
        self._options = options
        self._max_pixels = check_max_pixels(max_pixels)
        self._white = check_white(white)
        self._strict = check_strict(strict)
        self._closed = False
        self._contents = {} if options.low_memory else bundle.hold(precision)
        self._sessions: dict[str, SharedSession] = {}
        self._captured: dict[Session, Bound] = {}
        self._linear_head: LinearHead | None = None
        self._sizes: dict[tuple[str, BatchSize], ChunkSizes] = {}
        self._paces: dict[tuple[str, int], Pace] = {}
        self._last_clean_pass: tuple[Photograph, _CleanPass] | None = None

    def close(self) -> None:
        """Release sessions, weights and their memory. Every later use raises `ClosedError`.

        The end of a `with` block does the same, and so does dropping the last reference.
        """
        self._closed = True
        self._captured.clear()
        self._linear_head = None
        self._last_clean_pass = None
        self._contents = {}
        if self._sessions:
            self._sessions.clear()
            give_back()

    def __enter__(self) -> "Explainer":
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_sessions", None):  # it is not there where the constructor has failed
            self.close()

    def __copy__(self) -> "Explainer":
        self._check_open()
        return Explainer(
            self.bundle,
            self._options,
            max_pixels=self._max_pixels,
            white=self._white,
            strict=self._strict,
            precision=self._precision,
        )

    def __deepcopy__(self, _: dict[int, Any]) -> "Explainer":
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_open()
        reference = self.bundle.path, self.bundle.sha256, self._options
        return _load_again, (*reference, self._max_pixels, self._white, self._strict, self._precision)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.bundle.path}: this explainer is closed; `ortcam.load` makes another")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.bundle.manifest.labels

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, in order."""
        return tuple(self._session(self.bundle.manifest.graphs.features).get_providers())

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._precision
        return f"<Explainer of {self.bundle.manifest.in_words}, {state}>"

    def read(self, image: Image | None = None, *, preprocessed: ArrayLike | None = None) -> Photograph:
        """Decode and preprocess an image once, for several explanations of it.

        Args:
            image: as `explain` takes it, but one image.
            preprocessed: a model input instead of an image, as `explain` takes it.

        Raises:
            ImageError: missing, not an image, truncated or too large, or not the model's input.
            OptionError: neither an image nor a preprocessed one, or both.

        Example:
            >>> photograph = explainer.read("cat.jpg")  # doctest: +SKIP
            >>> maps = [explainer.explain(photograph, method=m) for m in ("scorecam", "cam")]  # doctest: +SKIP
        """
        self._check_open()
        preprocessing = self.bundle.manifest.preprocessing
        if (image is None) == (preprocessed is None):
            raise OptionError(
                "an image and preprocessed= are both given: give one of them"
                if image is not None
                else "no image: give an image, or preprocessed= with the model's input"
            )
        if image is None:
            return read_preprocessed(preprocessed, preprocessing)
        return read_photograph(
            image, preprocessing, max_pixels=self._max_pixels, white=self._white, strict=self._strict
        )

    @overload
    def preprocess(self, image: Image) -> NDArray[np.float32]: ...
    @overload
    def preprocess(self, image: list[Image] | tuple[Image, ...]) -> list[NDArray[np.float32]]: ...
    def preprocess(
        self, image: Image | list[Image] | tuple[Image, ...]
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return what the model sees: float32 [1,3,H,W], or a list of them for a list of images.

        Args:
            image: as `explain` takes it.

        Raises:
            ImageError: missing, not an image, truncated or too large.
        """
        if isinstance(image, list | tuple):
            return [photograph.model_input for photograph in self.read_many(image)]
        return self.read(image).model_input

    @overload
    def predict(self, image: Image | None = None, *, preprocessed: ArrayLike | None = None) -> NDArray[np.float32]: ...
    @overload
    def predict(self, image: list[Image] | tuple[Image, ...]) -> list[NDArray[np.float32]]: ...
    def predict(
        self,
        image: Image | list[Image] | tuple[Image, ...] | None = None,
        *,
        preprocessed: ArrayLike | None = None,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return the probability of every class: float32 [classes], or a list of them for a list of images.

        Softmax models give probabilities that add up to 1. Sigmoid models give each class a probability of its own.

        Args:
            image: as `explain` takes it.
            preprocessed: a model input instead of an image, as `explain` takes it.

        Raises:
            ImageError: missing, not an image, truncated or too large, or not the model's input.
            NotFiniteError: a feature or a logit is infinite or not a number.

        Example:
            >>> explainer.predict("cat.jpg").shape  # doctest: +SKIP
            (1000,)
        """
        if isinstance(image, list | tuple):
            _check_alone(preprocessed)
            return [self._clean_pass(photograph).probabilities for photograph in self.read_many(image)]
        return self._clean_pass(self.read(image, preprocessed=preprocessed)).probabilities

    def top(
        self, image: Image | None = None, *, top_k: int = 5, preprocessed: ArrayLike | None = None
    ) -> list[Prediction]:
        """Return the most probable classes of an image, the most probable first.

        Args:
            image: as `explain` takes it, but one image.
            top_k: how many classes; all of them if the model has fewer.
            preprocessed: a model input instead of an image, as `explain` takes it.

        Raises:
            ImageError: missing, not an image, truncated or too large, or not the model's input.
            NotFiniteError: a feature or a logit is infinite or not a number.
            TargetError: `top_k` is no whole number from 1.

        Example:
            >>> explainer.top("mug.jpg", top_k=1)  # doctest: +SKIP
            [<Prediction 'mug' (4), 98.62%>]
        """
        count = min(as_top_k(top_k), len(self.labels))
        clean = self._clean_pass(self.read(image, preprocessed=preprocessed))
        return [
            Prediction(int(index), self.labels[index], float(clean.probabilities[index]))
            for index in most_probable(clean.logits, count)
        ]

    def features(self, image: Image | None = None, *, preprocessed: ArrayLike | None = None) -> NDArray[np.float32]:
        """Return the maps of the layer that explanations are made of: float32 [C,h,w].

        Args:
            image: as `explain` takes it, but one image.
            preprocessed: a model input instead of an image, as `explain` takes it.

        Raises:
            ImageError: missing, not an image, truncated or too large, or not the model's input.
            NotFiniteError: a feature or a logit is infinite or not a number.
        """
        return self._clean_pass(self.read(image, preprocessed=preprocessed)).maps

    def logits(
        self, count: int, inputs: Callable[[slice], NDArray[np.float32]], *, batch_size: BatchSize = "auto"
    ) -> NDArray[np.float32]:
        """Compute the logits of many inputs that are never in memory together: float32 [count,classes].

        Args:
            count: how many inputs.
            inputs: makes the inputs of a slice, preprocessed: float32 [n,3,H,W].
            batch_size: inputs per run, or "auto". At most 2 GB of them are made at a time.

        Raises:
            OptionError: a batch size that is not accepted.
            NotFiniteError: a logit is infinite or not a number.
            OutOfMemoryError: not even one fits into the memory of the device.
            ProviderError: whatever else ONNX Runtime could not do.
        """
        batch_size = check_batch_size(batch_size)
        graphs = self.bundle.manifest.graphs
        first = Bound(self._session(graphs.features if graphs.head else graphs.classifier or ""), outputs=())
        if batch_size != "auto":
            image = self.bundle.manifest.preprocessing
            batch_size = min(batch_size, max(1, _MOST_PIXELS_A_RUN // (image.height * image.width)))
        sizes = self._chunk_sizes("classifier", first, batch_size)
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < count:
            size, padded = sizes.next(count - start)
            chunk = inputs(slice(start, start + size))
            if padded > size:
                chunk = np.concatenate([chunk, np.repeat(chunk[-1:], padded - size, axis=0)])
            clock = time.perf_counter()
            try:
                logits = classify_only(graphs, self._session, chunk)
            except OutOfMemoryError:
                sizes.halve(padded)
                continue
            sizes.record(padded, time.perf_counter() - clock)
            check_rows("logits", logits, padded, len(self.labels))
            check_finite("logits of the image or of altered ones", logits[:size])
            parts.append(logits[:size])
            start += size
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)

    @overload
    def explain(
        self,
        image: Image | None = None,
        *,
        preprocessed: ArrayLike | None = None,
        method: str = "scorecam++",
        target: Target | Iterable[Target] | None = None,
        top_k: int = 1,
        batch_size: BatchSize = "auto",
        budget: float | int | None = None,
        deadline: float | None = None,
        tolerance: float | None = None,
        completion: Completion = "gaussian-process",
        sampling_error: float | None = None,
        progress: Progress | None = None,
        **options: object,
    ) -> Explanation: ...
    @overload
    def explain(self, image: list[Image] | tuple[Image, ...], **arguments: Any) -> list[Explanation]: ...
    def explain(
        self,
        image: Image | list[Image] | tuple[Image, ...] | None = None,
        *,
        preprocessed: ArrayLike | None = None,
        method: str = "scorecam++",
        target: Target | Iterable[Target] | None = None,
        top_k: int = 1,
        batch_size: BatchSize = "auto",
        budget: float | int | None = None,
        deadline: float | None = None,
        tolerance: float | None = None,
        completion: Completion = "gaussian-process",
        sampling_error: float | None = None,
        progress: Progress | None = None,
        **options: object,
    ) -> Explanation | list[Explanation]:
        """Explain why the model gives an image its classes. Several classes cost the same forward passes as one.

        Without a limit every channel is scored, and the map is exact. `budget`, `deadline` and `tolerance` stop
        earlier, whichever comes first. The weights of the other channels are then predicted from those that were scored
        (see `ortcam.scoring.gaussian_process`), and `stats` says how much was scored and how wrong the map may be.

        Args:
            image: path, encoded bytes, binary file object, `PIL.Image`, or an array or tensor: uint8, or floats from 0
                to 1, [H0,W0,3] or [3,H0,W0] (`images.decoding.read_image` lists everything); or what `read` returned. A
                list of images gives a list of explanations. For a folder or for many images use `explain_many`.
            preprocessed: instead of an image: the model's input, floats [1,3,H,W] or [3,H,W], as a service already has
                it. The overlay then shows this input, with its normalisation undone.
            method: "scorecam", "scorecam++", "sscam" or "iscam"; "recipro-cam", "ablation-cam", "eigen-cam" or "cam".
            target: class index, label, or several of them as a list, an array or a tensor. An integer is an index.
                `class_index` has the rule for texts. Each gives one map, in the order given. None takes the `top_k`
                most probable classes.
            top_k: how many classes, if there is no target.
            batch_size: masked images, or altered features, per run of the graph. It changes time and memory, but not
                the result beyond rounding, unless there is a deadline. "auto" finds a good one while it explains, and
                remembers it.
            budget: channels to score: a share in (0,1] of those that are not flat, or a whole number of them.
            deadline: milliseconds from the call to the result. At least one run of the graph is made. A first
                explanation also opens the sessions. Only with a deadline does the map depend on the machine and its
                load: on how much is scored in time, and on what is simplified to be ready in time, which
                `stats.simplified` names. `stats.seconds_late` says by how much a deadline was missed.
            tolerance: the largest error of the map, in (0,1), that the estimate may show when the loop stops.
            completion: "gaussian-process", or "none": channels that were not scored have no weight.
            sampling_error: for SS-CAM and IS-CAM: stop sampling a channel once the standard error of its weight is
                below this share of it, or of the mean weight if that is larger. None takes all samples.
            progress: called as progress(passes made, passes in all) after every run of the graph.
            **options: of the method; see `ortcam.methods.METHODS`.

        Raises:
            ImageError: missing, not an image, truncated or too large, or not the model's input.
            OptionError: an unknown method or option, a value that is not accepted (`support.ranges` has the numbers), a
                method that this bundle's head does not allow, or no image.
            NotFiniteError: a feature, a logit, a score or the map is infinite or not a number.
            OutOfMemoryError: not even one masked image fits into the memory of the device, or `batch_size` altered
                features do not.
            TargetError: a class that the model does not have, or a label that names none or several.

        Example:
            >>> explanation = explainer.explain("cat.jpg", top_k=3)  # doctest: +SKIP
            >>> explanation.save("out/cat")  # doctest: +SKIP
            >>> explainer.explain(frame, method="cam", target="dog")  # uint8 [480,640,3]  # doctest: +SKIP
            >>> explainer.explain(preprocessed=tensor, budget=0.12)  # float32 [1,3,224,224]  # doctest: +SKIP
        """
        request = ExplainRequest.of(
            method=method,
            target=target,
            top_k=top_k,
            batch_size=batch_size,
            budget=budget,
            deadline=deadline,
            tolerance=tolerance,
            completion=completion,
            sampling_error=sampling_error,
            **options,
        )
        if isinstance(image, list | tuple):
            _check_alone(preprocessed)
            request.check(self.bundle.manifest)
            return list(self._explain_each(self.read_many(image), request, progress))
        return self._explain(image, request, progress, preprocessed)

    def explain_iter(
        self, image: Image | None = None, *, preprocessed: ArrayLike | None = None, **arguments: Any
    ) -> Iterator[Explanation]:
        """Explain an image bit by bit: a generator of maps, each better than the one before. The last is the result.

        The channels that tell most about the map are scored first. The first map comes after a few of them, and each
        map has an estimate of its error. Without a limit the last map is exact.

        Args:
            image: as `explain` takes it, but one image.
            preprocessed: a model input instead of an image, as `explain` takes it.
            **arguments: those of `explain`.

        Raises:
            OrtcamError: as `explain`.

        Example:
            >>> for preview in explainer.explain_iter("cat.jpg"):  # doctest: +SKIP
            ...     print(preview.stats.scored_channels, preview.stats.estimated_error)
        """
        progress = arguments.pop("progress", None)
        return self._explanations(image, ExplainRequest.of(**arguments), progress, preprocessed, previews=True)

    def explain_many(
        self,
        images: Iterable[Image] | str | os.PathLike[str],
        *,
        on_error: Callable[[Image, OrtcamError], None] | None = None,
        **arguments: Any,
    ) -> Generator[Explanation, None, None]:
        """Explain images one after the other, and read the next ones meanwhile: a generator.

        What `images`, `on_error` or `progress` raises is raised here. The thread ends when the generator is exhausted,
        closed or dropped.

        Memory: besides the image that is explained (3 bytes per pixel), one that was read and one that is being read
        are in memory: at most 60 MB and 18 bytes per pixel of `max_pixels`, 510 MB by default.

        Args:
            images: any iterable of images. A thread takes images from it and decodes them, at most two ahead. Or a
                folder ("photos") or a glob ("photos/**"), whose images come in natural order.
            on_error: called with an image that cannot be read and the error; the image is then skipped. None raises.
            **arguments: those of `explain`.

        Raises:
            OrtcamError: as `explain`.

        Example:
            >>> for explanation in explainer.explain_many("photos", budget=0.12):  # doctest: +SKIP
            ...     print(explanation)
        """
        progress = arguments.pop("progress", None)
        request = ExplainRequest.of(**arguments)
        request.check(self.bundle.manifest)
        return self._explain_each(self.read_many(images, on_error=on_error), request, progress)

    def _explain_each(
        self, photographs: Generator[Photograph, None, None], request: ExplainRequest, progress: Progress | None
    ) -> Generator[Explanation, None, None]:
        with contextlib.closing(photographs):
            for photograph in photographs:
                yield self._explain(photograph, request, progress)

    def read_many(
        self,
        images: Iterable[Image] | str | os.PathLike[str],
        *,
        on_error: Callable[[Image, OrtcamError], None] | None = None,
    ) -> Generator[Photograph, None, None]:
        """Decode and preprocess images in a thread while earlier ones are worked on: a generator.

        What `images` or `on_error` raises is raised here. The thread ends when the generator is exhausted, closed or
        dropped.

        Memory: as `explain_many`.

        Args:
            images: as `explain_many` takes them.
            on_error: called with an image that cannot be read and the error; the image is then skipped. None raises.

        Raises:
            ImageError: an image is missing, not an image, truncated or too large, and `on_error` is None; or `images`
                is one image, or a folder without any.
        """
        return self._read_each(_several(images), on_error)

    def _read_each(
        self, images: Iterable[Image], on_error: Callable[[Image, OrtcamError], None] | None
    ) -> Generator[Photograph, None, None]:
        with contextlib.closing(read_ahead(images, self.read)) as ahead:
            for image, photograph in ahead:
                try:
                    ready = photograph()
                except OrtcamError as error:
                    if on_error is None:
                        raise
                    on_error(image, error)
                    continue
                yield ready

    def _explain(
        self,
        image: Image | None,
        request: ExplainRequest,
        progress: Progress | None,
        preprocessed: ArrayLike | None = None,
    ) -> Explanation:
        *_, last = self._explanations(image, request, progress, preprocessed, previews=False)
        return last

    def _explanations(
        self,
        image: Image | None,
        request: ExplainRequest,
        progress: Progress | None,
        preprocessed: ArrayLike | None,
        *,
        previews: bool,
    ) -> Iterator[Explanation]:
        """The explanations of an image on the way to the one asked for, which is the last."""
        clock = _Clock()
        request.check(self.bundle.manifest)
        plan = request.settings.plan
        if plan is None:
            yield self._explain_with_head(image, request, progress, preprocessed, clock)
            return
        photograph = self.read(image, preprocessed=preprocessed)
        clock.lap("decode")
        clean = self._clean_pass(photograph)
        targets, asked = request.classes(clean.logits, self.labels)
        clock.lap("features")
        height, width = photograph.model_input.shape[2:]
        masks = prepare_masks(clean.maps, plan, height=height, width=width)
        clock.lap("prepare")
        session = self._session(self.bundle.scorer(plan.scorer, self._precision).name)
        scorer = self._scorer(session, plan)
        scoring = Scoring(
            scorer,
            image=photograph.model_input,
            masks=masks,
            plan=plan,
            targets=targets,
            baseline=self._baseline(photograph, plan, targets),
            sizes=self._chunk_sizes(plan.scorer, scorer, request.batch_size),
            sampling_error=request.sampling_error,
            # A run for a thousand classes says nothing of one for a few: each has a pace up to a factor of 2.
            pace=self._paces.setdefault((plan.scorer, len(targets).bit_length()), Pace()),
        )
        steps = score(scoring, request.limits, started=clock.start, progress=progress, previews=previews)
        for scores in steps:
            clock.lap("scoring")
            with scoring.pace.timing("finish", scoring.pixels * len(targets)):
                raw = raw_maps(masks, plan, scores)
                maps, flat = finish(raw, height, width)
            clock.lap("map")
            yield self._explanation(
                photograph,
                request,
                clean,
                targets,
                asked,
                maps=maps,
                raw_maps=raw,
                weights=scores.weights,
                flat=flat,
                scored=scores.scored,
                stats=_stats(session, self._precision, masks, scores, clock, request.limits.deadline),
            )
            clock.skip()

    def _explanation(
        self,
        photograph: Photograph,
        request: ExplainRequest,
        clean: "_CleanPass",
        targets: NDArray[np.int64],
        asked: NDArray[np.intp],
        *,
        maps: NDArray[np.float32],
        raw_maps: NDArray[np.float64],
        weights: NDArray[np.float64],
        flat: NDArray[np.bool_],
        scored: NDArray[np.bool_],
        stats: Stats,
    ) -> Explanation:
        settings = request.settings
        with np.errstate(over="ignore"):  # what float32 does not hold is an error, below
            raw, alpha = raw_maps.astype(np.float32), weights.astype(np.float32)
        check_finite("values of map and weights", maps, raw, alpha)
        if len(asked) > len(targets):  # a class that was asked for twice is explained once and given twice
            targets, maps, raw = targets[asked], maps[asked], raw[asked]
            alpha, flat = alpha[asked], flat[asked]
            stats = dataclasses.replace(
                stats,
                estimated_error=_taken(stats.estimated_error, asked),
                standard_error=_taken(stats.standard_error, asked),
            )
        return Explanation(
            method=settings.method.name,
            title=settings.method.title,
            options=settings.options,
            targets=tuple(int(index) for index in targets),
            labels=tuple(self.labels[index] for index in targets),
            probabilities=clean.probabilities[targets],
            maps=maps,
            raw_maps=raw,
            weights=alpha,
            scored=scored,
            flat=flat,
            image=photograph.pixels,
            preprocessing=photograph.preprocessing,
            stats=stats,
            provenance={"limits": request.record()["limits"], **self._provenance(photograph)},
        )

    def _explain_with_head(
        self,
        image: Image | None,
        request: ExplainRequest,
        progress: Progress | None,
        preprocessed: ArrayLike | None,
        clock: "_Clock",
    ) -> Explanation:
        """An explanation by one of the methods that mask no image."""
        manifest = self.bundle.manifest
        photograph = self.read(image, preprocessed=preprocessed)
        clock.lap("decode")
        clean = self._clean_pass(photograph)
        targets, asked = request.classes(clean.logits, self.labels)
        clock.lap("features")
        batch_size = (
            (1 if self._options.low_memory else _HEAD_BATCH_SIZE)
            if request.batch_size == "auto"
            else request.batch_size
        )
        head = Head(self._run_head, manifest.cut, manifest.activation, batch_size, progress)
        prefix = prefix_tokens(clean.features, head.cut)
        inputs = HeadInputs(clean.maps, prefix, clean.logits, targets, head, lambda: self._linear(head))
        scores = request.settings.compute(inputs)
        clock.lap("scoring")
        maps, flat = finish(scores.raw, *photograph.model_input.shape[2:])
        clock.lap("map")
        session = self._session(
            manifest.graphs.head if head.runs and manifest.graphs.head else manifest.graphs.features
        )
        live = active_channels(clean.maps)
        stats = Stats(
            providers=tuple(session.get_providers()),
            precision=manifest.precision,
            batch_size=batch_size,
            channels=len(live),
            live_channels=int(live.sum()),
            scored_channels=int(live.sum()),
            passes=0,
            runs=head.runs,
            seconds=clock.total(),
            seconds_by_stage=dict(clock.laps),
            head_passes=head.passes,
        )
        return self._explanation(
            photograph,
            request,
            clean,
            targets,
            asked,
            maps=maps,
            raw_maps=scores.raw,
            weights=scores.weights,
            flat=flat,
            scored=live,
            stats=stats,
        )

    def _linear(self, head: Head) -> LinearHead:
        """The head as one linear layer; found once for all images and classes."""
        if self._linear_head is None:
            self._linear_head = LinearHead.recover(head)
        return self._linear_head

    def _run_head(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self.bundle.manifest.graphs.head is not None  # checked before
        bound = Bound(self._session(self.bundle.manifest.graphs.head), outputs=("logits",))
        bound.put("features", features)
        logits: NDArray[np.float32]
        (logits,) = bound.run()
        check_rows("logits of altered features", logits, len(features), len(self.labels))
        return logits

    def _scorer(self, session: Session, plan: Plan) -> Bound:
        """A scorer's session with inputs in place; where it replays CUDA graphs always the same, else a fresh one."""
        if session in self._captured:
            return self._captured[session]
        scorer = Bound(session, outputs=_GATED_OUTPUTS if plan.gate else _GATED_OUTPUTS[:2])
        if scorer.captures:
            self._captured[session] = scorer
        return scorer

    def _session(self, name: str) -> Session:
        self._check_open()
        if name not in self._sessions:
            self._sessions[name] = share_session(self.bundle.graph(name), self._options)
        return self._sessions[name].session

    def _clean_pass(self, photograph: Photograph) -> "_CleanPass":
        """Features, maps, logits and probabilities of the image as it is; those of the last photograph are kept.

        Raises:
            BundleError: the model has another number of classes than the bundle has labels.
            NotFiniteError: a feature or a logit is infinite or not a number.
        """
        self._check_open()
        if self._last_clean_pass is None or self._last_clean_pass[0] is not photograph:
            manifest = self.bundle.manifest
            features, logits = classify(manifest.graphs, self._session, photograph.model_input)
            if len(logits[0]) != len(manifest.labels):
                raise BundleError(
                    f"{self.bundle.path}: its model has {len(logits[0])} classes, and bundle.json has "
                    f"{len(manifest.labels)} labels; accepted is one per class"
                )
            check_finite("features and logits of the image", features, logits)
            clean = _CleanPass(
                features,
                as_maps(features, manifest.cut),
                logits[0],
                to_probabilities(logits[0], manifest.activation),
            )
            self._last_clean_pass = photograph, clean
        return self._last_clean_pass[1]

    def _baseline(self, photograph: Photograph, plan: Plan, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        """p(0)[c], float32 [K], where the plan subtracts it; else zeros."""
        if not plan.baseline or plan.weighting != "probability":
            return np.zeros(len(targets), np.float32)
        manifest = self.bundle.manifest
        _, logits = classify(manifest.graphs, self._session, np.zeros_like(photograph.model_input))
        check_rows("logits of the empty image", logits, 1, len(self.labels))
        check_finite("logits of the empty image", logits)
        return to_probabilities(logits[0], manifest.activation)[targets]

    def _chunk_sizes(self, kind: str, scorer: Bound, batch_size: BatchSize) -> ChunkSizes:
        """The sizes of the runs of a scorer; a search goes on from one explanation to the next."""
        sizes = self._sizes.get((kind, batch_size))
        if sizes is None:
            sizes = self._sizes[kind, batch_size] = self._new_chunk_sizes(kind, scorer, batch_size)
        return sizes

    def _new_chunk_sizes(self, kind: str, scorer: Bound, batch_size: BatchSize) -> ChunkSizes:
        if batch_size != "auto":
            return ChunkSizes([batch_size], fixed_shape=scorer.fixed_shape)
        if self._options.low_memory:
            return ChunkSizes([1], fixed_shape=scorer.fixed_shape)
        # What decides how fast a run is; not the name of the host, which a container has for itself.
        cores = usable_cores() or os.cpu_count()
        machine = processor_name(), platform.machine(), cores, runtime_version()
        key = json.dumps([self.bundle.sha256, kind, self._precision, self._options.threads, scorer.providers, machine])
        if (known := recall(key)) is not None:
            return ChunkSizes([known], fixed_shape=scorer.fixed_shape)
        return ChunkSizes(
            GPU_CANDIDATES if scorer.on_gpu else CPU_CANDIDATES,
            fixed_shape=scorer.fixed_shape,
            found=lambda size: remember(key, size),
        )

    def class_index(self, target: Target) -> int:
        """Find the index of a class by index or label; `ortcam.request` has the rule.

        Args:
            target: an integer is an index. A text is a label, in upper or lower case and with underscores or spaces,
                or else an index. "index:2" and "label:2" say which.

        Raises:
            TargetError: no such class, several of this label, or a number that may mean two classes.
        """
        return class_index(target, self.labels)

    def check(self, **arguments: Any) -> dict[str, Any]:
        """Check the arguments of `explain` before any image is read.

        Args:
            **arguments: those of `explain`.

        Returns:
            What the maps depend on besides image and classes, as a saved manifest has it: method, options, limits,
            precision and bundle.

        Raises:
            OrtcamError: as `explain`, for what would be wrong with every image. Whether `cam` fits the model is found
                only when the head runs.
        """
        arguments.pop("progress", None)
        request = ExplainRequest.of(**arguments)
        request.check(self.bundle.manifest)
        masked = request.settings.method.masks_image
        precision = self._precision if masked else self.bundle.manifest.precision
        return request.record() | {"stats": {"precision": precision}, "bundle": {"sha256": self.bundle.sha256}}

    def _provenance(self, photograph: Photograph) -> dict[str, Any]:
        manifest = self.bundle.manifest
        return {
            "image": photograph.record,
            "bundle": {"name": self.bundle.path.resolve().name, "sha256": self.bundle.sha256},
            "model": dataclasses.asdict(manifest.model),
            "cut": dataclasses.asdict(manifest.cut),
            "activation": manifest.activation,
            "preprocessing": dataclasses.asdict(photograph.preprocessing),
            "requested_providers": [[name, dict(values)] for name, values in self._options.providers],
            "threads": self._options.threads,
            "versions": {"ortcam": __version__, "onnxruntime": runtime_version(), "numpy": np.__version__},
        }


def _load_again(
    path: os.PathLike[str],
    sha256: str,
    options: SessionOptions,
    max_pixels: int,
    white: int | None,
    strict: bool,
    precision: str,
) -> Explainer:
    """The explainer that a pickle refers to.

    Raises:
        BundleError: the bundle is no longer there, cannot be trusted, or is another one.
    """
    bundle, held = (read_bundle(path), None) if options.low_memory else open_bundle(path, precision)
    if bundle.sha256 != sha256:
        raise BundleError(
            f"{bundle.path}: the bundle has changed since the explainer was pickled: the SHA-256 of its bundle.json is "
            f"{bundle.sha256[:12]}..., and it was {sha256[:12]}..."
        )
    explainer = Explainer(bundle, options, max_pixels=max_pixels, white=white, strict=strict, precision=precision)
    del held
    return explainer


@dataclasses.dataclass(frozen=True)
class _CleanPass:
    """What the model makes of an image as it is.

    Attributes:
        features: float32 [1,...] in the layout of the cut.
        maps: float32 [C,h,w], the maps in them.
        logits: float32 [classes].
        probabilities: float32 [classes].
    """

    features: NDArray[np.float32]
    maps: NDArray[np.float32]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def _several(images: Iterable[Image] | str | os.PathLike[str]) -> Iterable[Image]:
    """Images to iterate over; those of a folder or a glob, if it is one.

    Raises:
        ImageError: it is a single image that is no path, or a folder or a glob without images.
    """
    if isinstance(images, str | os.PathLike):
        return expand([os.fsdecode(images)], tell=lambda _: None)
    found: Any = images
    of_pixels = is_pillow(found) or (is_array(found) and len(getattr(found, "shape", ())) < 4)
    if of_pixels or isinstance(found, bytes | bytearray | memoryview | Photograph) or hasattr(found, "read"):
        raise ImageError(
            f"{type(found).__name__} is one image, and this takes several: give a list of images, a batch "
            "[N, H, W, 3], a folder or a glob; `explain` takes one"
        )
    return images


def _check_alone(preprocessed: object) -> None:
    if preprocessed is not None:
        raise OptionError("an image and preprocessed= are both given: give one of them")


def _taken(values: tuple[float, ...] | None, places: NDArray[np.intp]) -> tuple[float, ...] | None:
    return None if values is None else tuple(values[place] for place in places)


def _stats(
    session: Session, precision: str, masks: Masks, scores: Scores, clock: "_Clock", deadline: float | None
) -> Stats:
    late = 0.0 if deadline is None else max(clock.since_start() - deadline / 1000, 0.0)
    return Stats(
        providers=tuple(session.get_providers()),
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


class _Clock:
    """Wall time of named stages; a stage that comes again adds up."""

    def __init__(self) -> None:
        self.start = self._last = time.perf_counter()
        self._skipped = 0.0
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        """Leave out what happened since the last stage: somebody looked at a preview."""
        now = time.perf_counter()
        self._skipped += now - self._last
        self._last = now

    def since_start(self) -> float:
        """Wall time since the explanation began, the callers' included."""
        return time.perf_counter() - self.start

    def total(self) -> float:
        return time.perf_counter() - self.start - self._skipped
