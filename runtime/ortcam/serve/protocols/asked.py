"""`Asked`: the parameters of a request, the same in every protocol, checked for the bundle and the server's limits."""

import argparse
import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Self, cast, get_args

from ortcam.bundle import Manifest
from ortcam.errors import OptionError, TargetError
from ortcam.methods import AUTO_METHOD, COMMON_OPTIONS, MASKED_ONLY, METHODS, Settings, resolve_method
from ortcam.request import LIMITS, ExplainRequest, as_targets, class_indices, read_batch_size
from ortcam.serve.protocols.scores import take_score
from ortcam.serve.settings import RequestLimits
from ortcam.support.ranges import DEADLINE, TOP_K, Range, shown
from ortcam.support.suggestions import did_you_mean
from ortcam.support.words import counted

__all__ = ["MOST_BATCH", "PARAMETERS", "Asked", "MapForm", "OverlayForm", "read_deadline", "read_flag", "read_top_k"]

MapForm = Literal["low", "full", "none"]
OverlayForm = Literal["none", "png", "jpeg"]

# Masked images per run of the graph that a request may ask for: what they take grows with the model, not with the body.
MOST_BATCH: Final = 64

_LONGEST: Final = 1000  # characters of a value
_REPEATING: Final = ("num_samples", "references")  # options by which a method that masks no image repeats its work

# What every request may say, and what each parameter does, beside the options of the methods.
PARAMETERS: Final[dict[str, str]] = {
    "method": "name of the method, or auto",
    "target": "class index or label, or a list of them",
    "top_k": "how many of the most probable classes, if there is no target",
    "score": "what is explained: logit or probability of each class; or an expression such as 'mug - key', "
    "'entropy', 'cosine:NAME' or 'output[0, :, :]@NAME', which gives one map",
    "score_arrays": "the arrays that a score names: an object from names to lists of numbers",
    "budget": "channels to score: a share such as 0.12 or a whole number",
    "deadline_ms": "milliseconds from arrival to answer, waiting included; a method without masks that waits longer is "
    "refused, and else runs to its end",
    "tolerance": "largest estimated error of the map at which scoring may stop",
    "completion": "gaussian-process or none: the weights of channels that were not scored",
    "sampling_error": "relative standard error of a weight at which sampling may stop",
    "batch_size": f"masked images per run of the graph, at most {MOST_BATCH}, or auto",
    "precision": "of the masked passes: fp32, fp16, int8 or qnn, where the bundle has it",
    "map": "low: at the resolution of the layer; full: at the size of the model's input; none",
    "overlay": "none, png or jpeg: the photograph with the map drawn over it",
}


@dataclasses.dataclass(frozen=True)
class Asked:
    """What one request asks for.

    Attributes:
        request: checked for the bundle, with a method in place of "auto". Where the method masks the image its deadline
            is `deadline_ms`, from which the time since the request's arrival is still to be taken.
        deadline_ms: milliseconds from the arrival of the request; None: no deadline. With a method that masks no image
            it bounds the time in the queue alone.
        map: how the map is answered.
        overlay: how the overlay is answered.
        precision: full name of the precision of the masked passes; None: the one that the server loads.
    """

    request: ExplainRequest
    deadline_ms: float | None
    map: MapForm = "low"
    overlay: OverlayForm = "none"
    precision: str | None = None

    @classmethod
    def of(
        cls, parameters: Mapping[str, object], limits: RequestLimits, manifest: Manifest, *, previews: bool = False
    ) -> Self:
        """Check the parameters of a request.

        Args:
            parameters: by name, as JSON or a query string has them: a text is read as the parameter's type. None is a
                parameter that was not given. `PARAMETERS` and the options of the method are accepted.
            limits: of the server.
            manifest: of the bundle.
            previews: whether maps on the way are wanted: "auto" then takes a method that has them.

        Raises:
            OptionError: an unknown parameter, a value that is not accepted, or more than the server allows.
            TargetError: a class that the model does not have.

        Example:
            >>> Asked.of({"budget": "12%", "map": "full"}, RequestLimits(), manifest).map  # doctest: +SKIP
            'full'
        """
        given = {name: _bounded(name, value) for name, value in parameters.items() if value is not None}
        method = given.pop("method", AUTO_METHOD.name)
        named = resolve_method(cast("str", method), {}).method  # an unknown one is named before its options are
        _check_known(given, str(method))
        form = _choice(given, "map", get_args(MapForm))
        overlay = _choice(given, "overlay", get_args(OverlayForm))
        precision = _precision(given.pop("precision", None), manifest)
        deadline = read_deadline("deadline_ms", given.pop("deadline_ms")) if "deadline_ms" in given else None
        target, score = given.pop("target", None), take_score(given)
        read: dict[str, Any] = {name: _READERS.get(name, _as_is)(name, value) for name, value in given.items()}
        if target is not None:
            read["target"] = _targets(target, limits, manifest)
        if score is not None:
            read["score"] = score
        if named.masks_image or named is AUTO_METHOD:
            read["deadline"] = deadline
        request = ExplainRequest.of(method=cast("str", method), **read)
        request = request.for_bundle(manifest, previews=previews)
        _check_limits(request, limits, manifest)
        if precision is not None and not request.settings.method.masks_image:
            raise OptionError(f"precision with {request.settings.method.name}: {MASKED_ONLY}")
        return cls(request, deadline, cast("MapForm", form), cast("OverlayForm", overlay), precision)

    @classmethod
    async def beside(cls, parameters: Mapping[str, object], limits: RequestLimits, manifest: Manifest) -> Self:
        """`of`, beside the event loop where that may take long: with texts that may be no labels, or with arrays.

        Raises:
            OptionError: as `of`.
            TargetError: as `of`.
        """
        if isinstance(parameters.get("target"), str | list) or parameters.get("score") is not None:
            return await asyncio.to_thread(cls.of, parameters, limits, manifest)
        return cls.of(parameters, limits, manifest)

    @property
    def masks_image(self) -> bool:
        """Whether the explanation needs masked forward passes, and so takes long."""
        return self.request.settings.method.masks_image

    def has_probabilities(self, manifest: Manifest) -> bool:
        """Whether the numbers beside the maps are probabilities of classes, not values of a score or of outputs."""
        return self.request.has_probabilities(manifest)

    def share(self, passed_ms: float, images_left: int) -> Self:
        """The same for one image of several: it gets an equal share of the time that is left.

        Args:
            passed_ms: milliseconds since the request arrived.
            images_left: this one included.

        Example:
            >>> Asked(request, 1000.0).share(200.0, 4).deadline_ms  # doctest: +SKIP
            400.0
        """
        if self.deadline_ms is None:
            return self
        deadline = passed_ms + (self.deadline_ms - passed_ms) / images_left
        return dataclasses.replace(self, deadline_ms=deadline)


def _bounded(name: str, value: object) -> object:
    """A value of a size that can be looked at."""
    if name == "score_arrays":
        return value  # `take_score` looks at it
    items = value if isinstance(value, list | tuple) and name == "target" else [value]
    for item in items:
        if isinstance(item, list | tuple | Mapping):
            kind = "an object" if isinstance(item, Mapping) else "a list"
            where = f"an item of {name}" if items is value else name
            raise OptionError(f"{where} is {kind}: accepted is a single value")
        if isinstance(item, str) and len(item) > _LONGEST:
            raise OptionError(f"{shown(name)} has {len(item)} characters: accepted are at most {_LONGEST}")
    return value


def _check_known(given: Mapping[str, object], method: str) -> None:
    """Refuse a parameter that no method knows. One that another method knows is refused with the request."""
    own = [option.name for option in (*resolve_method(method, {}).method.options, *COMMON_OPTIONS)]
    options = {option.name for item in METHODS for option in item.options}
    for name in given:
        if name not in PARAMETERS and name not in own and name not in options:
            accepted = [*PARAMETERS, *own]
            hint = "; did you mean 'deadline_ms'?" if name == "deadline" else did_you_mean(name[:_LONGEST], accepted)
            raise OptionError(f"unknown parameter {shown(name)}; accepted: {', '.join(accepted)}{hint}")


def _choice(given: dict[str, object], name: str, accepted: tuple[str, ...]) -> object:
    value = given.pop(name, accepted[0])
    if value not in accepted:
        raise OptionError(f"{name}={shown(value)}: accepted is {', '.join(accepted)}")
    return value


def _precision(value: object, manifest: Manifest) -> str | None:
    if value is None:
        return None
    names = {"fp32": "float32", "fp16": "float16"}
    precision = names.get(value.strip().lower(), value.strip().lower()) if isinstance(value, str) else value
    known = (manifest.precision, *manifest.variants)
    if precision not in known:
        raise OptionError(f"precision={shown(value)}: accepted is {', '.join(known)}, which this bundle has")
    return str(precision)


def _number(range_: Range, value: object) -> Any:
    if isinstance(value, str):
        try:
            value = range_.read(value)
        except ValueError:
            raise OptionError(f"{range_.name}={shown(value)}: accepted is {range_.words}") from None
    return range_.check(value)


def read_top_k(name: str, value: object) -> int:
    """A number of classes, or the text of one.

    Raises:
        OptionError: neither.
    """
    return int(_number(dataclasses.replace(TOP_K, name=name), value))


def read_deadline(name: str, value: object) -> float:
    """A number of milliseconds, or the text of one.

    Raises:
        OptionError: neither.
    """
    return float(_number(dataclasses.replace(DEADLINE, name=name), value))


def read_flag(name: str, value: object) -> bool:
    """True or false, or the text of one of them.

    Raises:
        OptionError: neither.
    """
    found = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, str) and value.lower() in found:
        return found[value.lower()]
    if not isinstance(value, bool):
        raise OptionError(f"{name}={shown(value)}: accepted is true or false")
    return value


def _batch_size(_: str, value: object) -> object:
    if isinstance(value, str):
        try:
            value = read_batch_size(value)
        except (argparse.ArgumentTypeError, ValueError):
            raise OptionError(f"batch_size={shown(value)}: accepted is a whole number or auto") from None
    if isinstance(value, int) and value > MOST_BATCH:
        raise OptionError(f"batch_size={shown(value)}: this server accepts at most {MOST_BATCH}, or auto")
    return value


def _limit(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return LIMITS[name](value)
    except argparse.ArgumentTypeError as error:
        raise OptionError(f"{name}={error}") from None
    except ValueError:
        raise OptionError(f"{name}={shown(value)} is not a number") from None


def _as_is(_: str, value: object) -> object:
    return value


_READERS: Final[dict[str, Callable[[str, object], object]]] = {
    "top_k": read_top_k,
    "batch_size": _batch_size,
    **{name: _limit for name in LIMITS if name != "deadline"},
}


def _targets(target: object, limits: RequestLimits, manifest: Manifest) -> tuple[int | str, ...]:
    """The classes: a text may name several with commas between, an item of a list is one class."""
    if isinstance(target, str):
        _at_most(target.count(",") + 1 if len(target) > _LONGEST else 1, limits.targets)
        return tuple(class_indices([target], manifest.labels))
    if isinstance(target, list | tuple):
        _at_most(len(target), limits.targets)
    elif isinstance(target, bool) or not isinstance(target, int):
        raise TargetError(f"target={shown(target)}: accepted is a class index, a label, or a list of them")
    return as_targets(target)


def _at_most(count: int, most: int) -> None:
    if count > most:
        raise OptionError(f"{count} classes: this server explains at most {most} per request")


def _check_limits(request: ExplainRequest, limits: RequestLimits, manifest: Manifest) -> None:
    """Refuse what takes more work than the server allows.

    Raises:
        OptionError: too many classes, samples, copies or forward passes.
    """
    settings = request.settings
    _at_most(request.top_k if request.target is None else len(request.target), limits.targets)
    samples = _samples(settings)
    if samples > limits.samples:
        raise OptionError(
            f"{settings.method.name}: {samples} samples, and this server takes at most {limits.samples}: "
            f"give a smaller {_sampling_option(settings)}"
        )
    copies = 1 if settings.augmentation is None else settings.augmentation.copies
    if copies > limits.copies:
        raise OptionError(f"augment={copies}: this server explains at most {limits.copies} copies of an image")
    each = samples * copies
    channels = request.limits.channels(manifest.cut.channels) if settings.method.masks_image else 1
    if channels * each > limits.passes:
        most = limits.passes // each
        instead = f"give a budget of at most {counted(most, 'channel')}" if most else "give fewer samples or copies"
        raise OptionError(
            f"{settings.method.name}: {channels} channels with {each} forward passes each are {channels * each}, and "
            f"this server makes at most {limits.passes} per request: {instead}"
        )


def _samples(settings: Settings) -> int:
    if settings.plan is not None:
        return settings.plan.samples
    given = [settings.options.get(name) for name in _REPEATING]
    return max((value for value in given if isinstance(value, int)), default=1)


def _sampling_option(settings: Settings) -> str:
    return next((name for name in _REPEATING if name in settings.options), "number of samples")
