"""`Explainer`: explanations of a bundle's classifier. `explainer.run` is what happens in each of them."""

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, overload

from ortcam.bundle import Bundle
from ortcam.engine.base import Engine
from ortcam.engine.batching import BatchSize, Progress, Stop
from ortcam.engine.opening import SessionOptions
from ortcam.errors import ImageError, OptionError, OrtcamError
from ortcam.explainer.classifier import Classifier, check_alone, several
from ortcam.explainer.run import Run
from ortcam.explainer.signatures import taking
from ortcam.images.arrays.pixels import ArrayLike
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.photograph import Image, Photograph
from ortcam.request import ExplainRequest, Score, Target, class_index
from ortcam.results.explanation import Explanation
from ortcam.scoring.limits import Completion
from ortcam.scoring.pace import Paces
from ortcam.scoring.prediction.memory import Memory
from ortcam.support.ranges import check_flags, shown

__all__ = ["Explainer"]


class Explainer(Classifier):
    """Predicts and explains with one bundle. `ortcam.load` makes it.

    Any number of threads may use one explainer at once, also between two steps of `explain_iter`. They share its
    weights and sessions. Sessions are opened when they are first needed, and kept. Explainers of one model share
    weights, too, and on the CPU their sessions.

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
        engine: Engine | None = None,
    ) -> None:
        super().__init__(
            bundle, options, max_pixels=max_pixels, white=white, strict=strict, precision=precision, engine=engine
        )
        self._paces = Paces()

    @overload
    def explain(
        self,
        image: Image | None = None,
        *,
        preprocessed: ArrayLike | None = None,
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
        progress: Progress | None = None,
        **options: object,
    ) -> Explanation: ...
    @overload
    def explain(self, image: list[Image] | tuple[Image, ...], **arguments: Any) -> list[Explanation]: ...
    @taking(ExplainRequest.of, after="preprocessed")
    def explain(
        self,
        image: Image | list[Image] | tuple[Image, ...] | None = None,
        *,
        preprocessed: ArrayLike | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Explanation | list[Explanation]:
        """Explain why the model gives an image its classes. Several classes cost the same forward passes as one.

        By default `method="auto"` takes the method that suits the bundle (`ortcam.methods.AUTO`), and `chosen` of the
        result says which and why. A method that masks the image scores every channel, and its map is exact. `budget`,
        `deadline` and `tolerance` stop earlier, whichever comes first: "auto" then takes a method that masks the image.
        The weights of the other channels are predicted from those that were scored (see
        `ortcam.scoring.gaussian_process`), and `stats` says how much was scored and how wrong the map may be.

        Args:
            image: path, encoded bytes, binary file object, `PIL.Image`, or an array or tensor: uint8, or floats from 0
                to 1, [H0,W0,3] or [3,H0,W0] (`ortcam.images.read_image` lists everything); or what `read` returned. A
                list of images gives a list of explanations. For a folder or for many images use `explain_many`.
            preprocessed: instead of an image: the model's input, floats [1,C,H,W] or [C,H,W], as a service already has
                it. The overlay then shows this input, with its normalisation undone.
            method: "auto", or one of `ortcam.METHODS`, such as "scorecam++" or "recipro-cam".
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
            score: what to explain in place of what the method takes of a class: "logit" or "probability" of each class;
                or one score, such as "mug - key", "entropy" or "cosine:text.npy", without `target` (`ortcam.Score`).
            progress: called as progress(passes made, passes in all) after every run of the graph.
            **options: of the method; see `ortcam.methods.METHODS`. Every method has those of
                `ortcam.methods.COMMON_OPTIONS`: `augment=10` explains ten turned and moved copies of the image and
                combines their maps. Limits are then per copy, except for `deadline`, which all copies share.

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
        request = ExplainRequest.of(**options)
        if isinstance(image, list | tuple):
            check_alone(preprocessed)
            request = request.for_bundle(self.bundle.manifest)
            return list(self._explain_each(self.read_many(image), request, progress))
        return self.explain_request(request, image, preprocessed=preprocessed, progress=progress)

    def explain_request(
        self,
        request: ExplainRequest,
        image: Image | None = None,
        *,
        preprocessed: ArrayLike | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> Explanation:
        """Explain an image as a request says, which was checked when it was made: `explain` for many images.

        Args:
            request: of `ortcam.request.ExplainRequest.of`.
            image: as `explain` takes it, but one image.
            preprocessed: a model input instead of an image, as `explain` takes it.
            progress: as `explain` takes it. What it raises ends the explanation, and is raised here.
            stop: asked after every run of a graph, in the thread that explains. Once it says yes, scoring ends as at a
                deadline: the best map so far is the result, and `stats.simplified` says so. Unlike a deadline it has no
                influence on the method, or on the order of the channels. At least one run of the graph is made. Of
                copies (`augment`) those that are done are combined. Methods that mask no image run to their end.

        Raises:
            OrtcamError: as `explain`.

        Example:
            >>> leaving = threading.Event()  # doctest: +SKIP
            >>> explainer.explain_request(request, "cat.jpg", stop=leaving.is_set)  # doctest: +SKIP
        """
        *_, last = self._run(request, progress, stop).explanations(lambda: self.read(image, preprocessed=preprocessed))
        return last

    def explain_iter(
        self, image: Image | None = None, *, preprocessed: ArrayLike | None = None, **arguments: Any
    ) -> Iterator[Explanation]:
        """Explain an image bit by bit: a generator of maps, each better than the one before. The last is the result.

        The channels that tell most about the map are scored first. The first map comes after a few of them, and each
        map has an estimate of its error. Without a limit the last map is exact. So a method that masks the image is
        needed, and `method="auto"` takes one; any other gives its one map. With `augment` a map comes after each copy
        of the image, by any method.

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
        request = ExplainRequest.of(**arguments)
        return self.explain_iter_request(request, image, preprocessed=preprocessed, progress=progress)

    def explain_iter_request(
        self,
        request: ExplainRequest,
        image: Image | None = None,
        *,
        preprocessed: ArrayLike | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> Iterator[Explanation]:
        """Explain an image bit by bit as a request says: `explain_iter` as `explain_request` is `explain`.

        Args:
            request: of `ortcam.request.ExplainRequest.of`.
            image: as `explain` takes it, but one image.
            preprocessed: a model input instead of an image, as `explain` takes it.
            progress: as `explain_request` takes it.
            stop: as `explain_request` takes it.

        Raises:
            OrtcamError: as `explain`.
        """
        run = self._run(request, progress, stop, previews=True)
        return run.explanations(lambda: self.read(image, preprocessed=preprocessed))

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
        request = ExplainRequest.of(**arguments).for_bundle(self.bundle.manifest)
        return self._explain_each(self.read_many(images, on_error=on_error), request, progress)

    def explain_stream(
        self, frames: Iterable[Image], *, warm: bool = True, **arguments: Any
    ) -> Generator[Explanation, None, None]:
        """Explain the frames of a video or a camera, each with what the frame before it gave: a generator.

        A frame differs little from the one before, and so do its masks and the weights of its channels. With `budget`,
        `deadline` or `tolerance` a warm start makes use of that: half of the first channels are those that mattered in
        the frame before, and what earlier frames scored counts as seen in this one, the less the longer ago it was
        (`ortcam.scoring.prediction.recalled`). `stats.estimated_error` holds for the frame, as in `explain`.

        A frame starts cold, like a single image, after a cut, and where a class is explained that was not explained in
        the frames before. A cut is where the masks of the channels have moved about as far as they are apart
        (`ortcam.scoring.prediction.memory`). Without a limit every channel is scored, so every map is exact; so nothing
        is taken from the frame before. That holds for methods that mask no image, too, and for copies (`augment`).

        Frames are taken one by one, none ahead: with a camera, `frames` should give the newest.

        Args:
            frames: any iterable of images, as `explain` takes one. OpenCV gives frames as BGR: `frame[..., ::-1]`.
            warm: whether to start from the frame before. False gives the maps of `explain`, bit by bit.
            **arguments: those of `explain`. `deadline` is in milliseconds per frame, from when the frame was taken from
                `frames` to its map, so maps come at a steady rate.

        Raises:
            OptionError: `warm` neither True nor False, or `frames` a text.
            ImageError: `frames` a single image, or one of them none.
            OrtcamError: as `explain`.

        Example:
            >>> for explanation in explainer.explain_stream(frames, deadline=200):  # doctest: +SKIP
            ...     show(explanation.overlay())
        """
        check_flags(warm=warm)
        if isinstance(frames, (str, bytes)):
            raise OptionError(f"frames={shown(frames)}: accepted is an iterable of images, such as a loop over a video")
        progress = arguments.pop("progress", None)
        request = ExplainRequest.of(**arguments).for_bundle(self.bundle.manifest)
        return self._explain_frames(several(frames), request, progress, Memory() if warm else None)

    def _explain_frames(
        self, frames: Iterable[Image], request: ExplainRequest, progress: Progress | None, memory: Memory | None
    ) -> Generator[Explanation, None, None]:
        for number, frame in enumerate(frames, start=1):
            if frame is None:
                raise ImageError(f"frame {number} is None, as a camera gives it that failed; accepted is an image")
            run = self._run(request, progress, memory=memory)
            *_, last = run.explanations(functools.partial(self.read, frame))
            yield last

    def _explain_each(
        self, photographs: Generator[Photograph, None, None], request: ExplainRequest, progress: Progress | None
    ) -> Generator[Explanation, None, None]:
        with contextlib.closing(photographs):
            for photograph in photographs:
                yield self.explain_request(request, photograph, progress=progress)

    def _run(
        self,
        request: ExplainRequest,
        progress: Progress | None,
        stop: Stop | None = None,
        *,
        previews: bool = False,
        memory: Memory | None = None,
    ) -> Run:
        return Run(
            self._model,
            self._options,
            self._paces,
            request,
            progress=progress,
            stop=stop,
            previews=previews,
            memory=memory,
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
        request = ExplainRequest.of(**arguments).for_bundle(self.bundle.manifest)
        masked = request.settings.method.masks_image
        precision = self._model.precision if masked else self.bundle.manifest.precision
        return request.record() | {"stats": {"precision": precision}, "bundle": {"sha256": self.bundle.sha256}}
