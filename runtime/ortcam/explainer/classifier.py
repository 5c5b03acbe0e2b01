"""A classifier that is open: it reads images and predicts. `Explainer` adds the explanations."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Final, Self, overload

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Bundle, open_bundle, read_bundle
from ortcam.engine.base import Engine
from ortcam.engine.batching import BatchSize
from ortcam.engine.features import CleanPass
from ortcam.engine.model import Model
from ortcam.engine.opening import SessionOptions
from ortcam.engine.session import OnnxEngine
from ortcam.errors import BundleError, ImageError, OptionError, OrtcamError
from ortcam.images.arrays.pixels import ArrayLike, is_array, is_pillow
from ortcam.images.inputs import expand
from ortcam.images.limits import DEFAULT_MAX_PIXELS, check_max_pixels, check_strict, check_white
from ortcam.images.photograph import Image, Photograph, read_ahead, read_photograph, read_preprocessed
from ortcam.request import as_top_k, check_batch_size, check_classes, most_probable
from ortcam.results.prediction import Prediction
from ortcam.support.ranges import shown

__all__ = ["Classifier", "check_alone", "several"]

_SEVERAL: Final = "give a list of images, a batch [N, H, W, 3], a folder or a glob"


class Classifier:
    """The classifier of a bundle, with what an `Explainer` does besides explaining. Any number of threads may use it.

    Attributes:
        bundle: whose classifier it is.
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
        """Open nothing yet.

        Args:
            bundle: that was read.
            options: how sessions are opened.
            max_pixels: as `ortcam.load` takes it.
            white: as `ortcam.load` takes it.
            strict: as `ortcam.load` takes it.
            precision: as `ortcam.load` takes it.
            engine: what opens and runs the graphs; `close` closes it. None: ONNX Runtime.
        """
        self.bundle = bundle
        precision = bundle.check_precision(precision)
        self._options = options
        self._reading: dict[str, Any] = {
            "max_pixels": check_max_pixels(max_pixels),
            "white": check_white(white),
            "strict": check_strict(strict),
        }
        self._engine = engine
        opened = OnnxEngine(bundle, options, precision=precision) if engine is None else engine
        self._model = Model(bundle, opened, precision=precision, low_memory=options.low_memory, limit=options.limit)

    def close(self) -> None:
        """Release sessions, weights and their memory. Every later use raises `ClosedError`.

        Runs in other threads finish. The end of a `with` block does the same, and so does dropping the last reference.
        """
        self._model.close()

    def __enter__(self) -> Self:
        self._model.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> Self:
        self._model.check_open()
        return type(self)(
            self.bundle, self._options, **self._reading, precision=self._model.precision, engine=self._engine
        )

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        self._model.check_open()
        settings = self._reading | {"precision": self._model.precision, "engine": self._engine}
        return _open_again, (type(self), self.bundle.path, self.bundle.sha256, self._options, settings)

    def __repr__(self) -> str:
        state = "closed" if self._model.closed else self._model.precision
        return f"<{type(self).__name__} of {self.bundle.manifest.in_words}, {state}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.bundle.manifest.labels

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, in order."""
        self._model.check_open()
        return self._model.engine.providers

    @property
    def precision(self) -> str:
        """What the masked passes compute in: "float32", "float16", "int8" or "qnn"."""
        return self._model.precision

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
        self._model.check_open()
        preprocessing = self.bundle.manifest.preprocessing
        if image is None and preprocessed is None:
            raise OptionError("no image: give an image, or preprocessed= with the model's input")
        if image is None:
            return read_preprocessed(preprocessed, preprocessing)
        check_alone(preprocessed)
        photograph = read_photograph(image, preprocessing, **self._reading)
        self.check_memory("read an image")
        return photograph

    def check_memory(self, doing: str) -> None:
        """Refuse to go on once this process has passed `memory_limit`; without a limit do nothing.

        Reading, every run of a graph and the end of an explanation are checked anyway. Call it after work of your own.

        Args:
            doing: what was done, in words that follow "once it had".

        Raises:
            OptionError: it has passed it; the message says what the process needed.

        Example:
            >>> explainer = ortcam.load("shapes", memory_limit=200)  # doctest: +SKIP
            >>> explainer.explain("cat.jpg").save("out")  # doctest: +SKIP
            >>> explainer.check_memory("saved the pictures")  # doctest: +SKIP
        """
        if self._model.limit is not None:
            self._model.limit.check(doing)

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
        return _read_each(several(images, arrays=self.bundle.manifest.preprocessing.needs_samples), self.read, on_error)

    @overload
    def preprocess(self, image: Image) -> NDArray[np.float32]: ...
    @overload
    def preprocess(self, image: list[Image] | tuple[Image, ...]) -> list[NDArray[np.float32]]: ...
    def preprocess(
        self, image: Image | list[Image] | tuple[Image, ...]
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return what the model sees: float32 [1,C,H,W], or a list of them for a list of images.

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
        Models whose outputs are values give these, in the shape that the model gives them for one image; several
        outputs are one row, which `bundle.manifest.outputs_by_name` takes apart.

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
            check_alone(preprocessed)
            return [self._predicted(photograph) for photograph in self.read_many(image)]
        return self._predicted(self.read(image, preprocessed=preprocessed))

    def classify(
        self, image: Image | None = None, *, preprocessed: ArrayLike | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits and probabilities of one image, of the same forward pass: float32 [classes] each.

        Args:
            image: as `explain` takes it, but one image.
            preprocessed: a model input instead of an image, as `explain` takes it.

        Raises:
            ImageError: missing, not an image, truncated or too large, or not the model's input.
            NotFiniteError: a feature or a logit is infinite or not a number.

        Example:
            >>> logits, probabilities = explainer.classify("cat.jpg")  # doctest: +SKIP
        """
        clean = self._clean_pass(self.read(image, preprocessed=preprocessed))
        return clean.logits.copy(), clean.probabilities.copy()

    def top(
        self, image: Image | None = None, *, top_k: int = 5, preprocessed: ArrayLike | None = None
    ) -> list[Prediction]:
        """Return the most probable classes of an image, the most probable first; of values the largest.

        Args:
            image: as `explain` takes it, but one image.
            top_k: how many classes; all of them if the model has fewer.
            preprocessed: a model input instead of an image, as `explain` takes it.

        Raises:
            ImageError: missing, not an image, truncated or too large, or not the model's input.
            NotFiniteError: a feature or a logit is infinite or not a number.
            TargetError: `top_k` is no whole number from 1, or the model has no classes.

        Example:
            >>> explainer.top("mug.jpg", top_k=1)  # doctest: +SKIP
            [<Prediction 'mug' (4), 98.62%>]
        """
        count, manifest = min(as_top_k(top_k), len(self.labels)), self.bundle.manifest
        check_classes(manifest)
        clean = self._clean_pass(self.read(image, preprocessed=preprocessed))
        of_probability = manifest.activation != "identity"
        return [
            Prediction(int(index), self.labels[index], float(clean.probabilities[index]), of_probability)
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
        return self._clean_pass(self.read(image, preprocessed=preprocessed)).maps.copy()

    def logits(
        self, count: int, inputs: Callable[[slice], NDArray[np.float32]], *, batch_size: BatchSize = "auto"
    ) -> NDArray[np.float32]:
        """Compute the logits of many inputs that are never in memory together: float32 [count,classes].

        Args:
            count: how many inputs.
            inputs: makes the inputs of a slice, preprocessed: float32 [n,C,H,W].
            batch_size: inputs per run, or "auto". At most 2 GB of them are made at a time.

        Raises:
            OptionError: a batch size that is not accepted, or not the one that the bundle's graphs are fixed at.
            NotFiniteError: a logit is infinite or not a number.
            OutOfMemoryError: not even one fits into the memory of the device.
            ProviderError: whatever else ONNX Runtime could not do.
        """
        return self._model.logits(count, inputs, batch_size=check_batch_size(batch_size, self.bundle.manifest))

    def _predicted(self, photograph: Photograph) -> NDArray[np.float32]:
        return self._clean_pass(photograph).probabilities.reshape(self.bundle.manifest.output_shape).copy()

    def _clean_pass(self, photograph: Photograph) -> CleanPass:
        return self._model.clean_pass(photograph.model_input)


def check_alone(preprocessed: object) -> None:
    """Refuse a model input beside an image.

    Raises:
        OptionError: there is one.
    """
    if preprocessed is not None:
        raise OptionError("an image and preprocessed= are both given: give one of them")


def several(images: Iterable[Image] | str | os.PathLike[str], *, arrays: bool = False) -> Iterable[Image]:
    """Images to iterate over; those of a folder or a glob, if it is one, with `arrays` .npy and .npz files, too.

    Raises:
        ImageError: it is a single image that is no path, no iterable, or a folder or a glob without images.
    """
    if isinstance(images, str | os.PathLike):
        return expand([os.fsdecode(images)], tell=lambda _: None, arrays=arrays)
    found: Any = images
    of_pixels = is_pillow(found) or (is_array(found) and len(getattr(found, "shape", ())) < 4)
    if of_pixels or isinstance(found, bytes | bytearray | memoryview | Photograph) or hasattr(found, "read"):
        raise ImageError(
            f"{type(found).__name__} is one image, and this takes several: {_SEVERAL}; `explain` takes one"
        )
    if isinstance(found, Mapping) or not (isinstance(found, Iterable) or hasattr(found, "__getitem__")):
        raise ImageError(f"{shown(found)}: accepted are images, {_SEVERAL}")
    return images


def _read_each(
    images: Iterable[Image],
    read: Callable[[Image], Photograph],
    on_error: Callable[[Image, OrtcamError], None] | None,
) -> Generator[Photograph, None, None]:
    with contextlib.closing(read_ahead(images, read)) as ahead:
        for image, photograph in ahead:
            try:
                ready = photograph()
            except OrtcamError as error:
                if on_error is None:
                    raise
                on_error(image, error)
                continue
            yield ready


def _open_again(
    kind: "type[Classifier]", path: os.PathLike[str], sha256: str, options: SessionOptions, settings: dict[str, Any]
) -> Classifier:
    """What a pickle refers to.

    Raises:
        BundleError: the bundle is no longer there, cannot be trusted, or is another one.
    """
    # What was opened is held until the explainer holds it.
    bundle, held = (read_bundle(path), None) if options.low_memory else open_bundle(path, settings["precision"])
    if bundle.sha256 != sha256:
        raise BundleError(
            f"{bundle.path}: the bundle has changed since the explainer was pickled: the SHA-256 of its bundle.json is "
            f"{bundle.sha256[:12]}..., and it was {sha256[:12]}..."
        )
    opened = kind(bundle, options, **settings)
    del held
    return opened
