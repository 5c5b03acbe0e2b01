"""Settings of the server: bundles, addresses, workers and limits, checked once."""

import dataclasses
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from ortcam.engine.providers import Provider, resolve_providers
from ortcam.errors import OptionError
from ortcam.serve.models.found import ServedBundle, find_bundles
from ortcam.support.ranges import MEMORY_LIMIT, PORT, THREADS, Range, shown
from ortcam.support.suggestions import did_you_mean

__all__ = ["LIMIT_RANGES", "RequestLimits", "ServedBundle", "Settings"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_EXPLAINS: Final = "-explain"  # ending of the name under which protocol v2 explains with a model
_MEBI: Final = 1 << 20
_LITTLE_WAITING: Final = 64 * _MEBI  # `waiting_bytes`, where a limit of memory is given and no other number of them


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """What one request may cost. The defaults hold without any configuration.

    Attributes:
        body_bytes: the largest body of a request.
        pixels: the most pixels of an image, which its header tells before anything is decoded.
        decode_seconds: the longest that decoding one image may take.
        decode_bytes: the most memory that decoding one image may take.
        images: the most images of a request.
        targets: the most classes of an explanation.
        samples: the most samples, for methods that sample.
        copies: the most copies of the image, for `augment`.
        passes: the most masked forward passes of an explanation.
        seconds: from the arrival of a request until the best map so far is its answer.
        answer_bytes: the largest answer, which overlays and full maps of many classes and images come to.
        waiting_bytes: memory for the bodies, decoded images and answers of all requests together; beyond it, 429.
        queue: masked explanations that may wait; beyond them, 429.
        quick_queue: predictions and explanations without masks that may wait; beyond them, 429.
        jobs: asynchronous explanations that are kept, running or ended; beyond them, 429.
        job_seconds: how long the answer of a job is kept.
    """

    body_bytes: int = 16 * _MEBI
    pixels: int = 1 << 24
    decode_seconds: float = 5.0
    decode_bytes: int = 512 * _MEBI
    images: int = 16
    targets: int = 10
    samples: int = 64
    copies: int = 32
    passes: int = 20_000
    seconds: float = 60.0
    answer_bytes: int = 64 * _MEBI
    waiting_bytes: int = 512 * _MEBI
    queue: int = 32
    quick_queue: int = 64
    jobs: int = 64
    job_seconds: float = 600.0

    @classmethod
    def of(cls, given: Mapping[str, object]) -> Self:
        """The defaults, with some limits replaced.

        Args:
            given: name of a limit -> its value, a number or the text of one.

        Raises:
            OptionError: an unknown limit, or a value that it does not take.

        Example:
            >>> RequestLimits.of({"pixels": "4000000"}).pixels
            4000000
        """
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in LIMIT_RANGES:
                raise OptionError(
                    f"unknown limit {shown(name)}: accepted are {', '.join(LIMIT_RANGES)}"
                    f"{did_you_mean(name, LIMIT_RANGES)}"
                )
            values[name] = _number(LIMIT_RANGES[name], value)
        return cls(**values)


def _limit(name: str, least: float, most: float, *, whole: bool = True, unit: str = "") -> Range:
    return Range(f"limit {name}", least, most, whole=whole, unit=unit)


LIMIT_RANGES: Final[dict[str, Range]] = {
    "body_bytes": _limit("body_bytes", 1024, 1 << 40),
    "pixels": _limit("pixels", 1, 2**31 - 1),
    "decode_seconds": _limit("decode_seconds", 0.01, 3600, whole=False, unit="seconds"),
    "decode_bytes": _limit("decode_bytes", 32 * _MEBI, 1 << 44),
    "images": _limit("images", 1, 100_000),
    "targets": _limit("targets", 1, 1_000_000),
    "samples": _limit("samples", 1, 1_000_000),
    "copies": _limit("copies", 1, 1_000_000),
    "passes": _limit("passes", 1, 1_000_000_000),
    "seconds": _limit("seconds", 0.01, 604_800, whole=False, unit="seconds"),
    "answer_bytes": _limit("answer_bytes", 1 << 16, 1 << 40),
    "waiting_bytes": _limit("waiting_bytes", 1 << 20, 1 << 44),
    "queue": _limit("queue", 0, 1_000_000),
    "quick_queue": _limit("quick_queue", 1, 1_000_000),
    "jobs": _limit("jobs", 1, 1_000_000),
    "job_seconds": _limit("job_seconds", 1, 604_800, whole=False, unit="seconds"),
}
_WORKERS: Final = Range("workers", 1, 256)
_DECODERS: Final = Range("decoders", 1, 256)
_DRAIN: Final = Range("drain_seconds", 0, 86_400, whole=False, unit="seconds")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a server runs. `of` makes one and checks it.

    Attributes:
        bundles: what is served; at least one.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        workers: masked explanations that run at the same time.
        threads: CPU threads of each masked explanation; None divides the cores among the workers.
        providers: execution providers, as `ortcam.load` takes them, such as ["cuda", "cpu"]; None: the best.
        precision: precision of the masked passes, where a request does not say; None: the bundle's own.
        memory_limit: megabytes that this process may have at its peak; None: as many as there are. Decoding processes
            have `decode_bytes` each.
        token: bearer token that requests need; None: everybody may ask. A configuration names a file that holds it.
        cors: origins whose pages may ask, "*" for all.
        ui: whether there is a page at /ui.
        watch: whether a bundle that changes is loaded again without a signal.
        limits: of a request.
        drain_seconds: the longest time from SIGTERM to the last answer.
        log_file: where the log goes; None: standard error.
        decoders: processes that decode images.
    """

    bundles: tuple[ServedBundle, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    threads: int | None = None
    providers: tuple[Provider, ...] | None = None
    precision: str | None = None
    memory_limit: int | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    cors: tuple[str, ...] = ()
    ui: bool = True
    watch: bool = False
    limits: RequestLimits = dataclasses.field(default_factory=RequestLimits)
    drain_seconds: float = 25.0
    log_file: Path | None = None
    decoders: int = 1

    @classmethod
    def of(
        cls,
        bundles: Iterable[ServedBundle | str | os.PathLike[str]],
        *,
        limits: RequestLimits | Mapping[str, object] | None = None,
        **others: Any,
    ) -> Self:
        """Check settings, and name each bundle after its folder where it has no name.

        Args:
            bundles: folders that are bundles or hold bundles, or "shapes" for the one that ortcam ships.
            limits: a whole set, or those that differ from the defaults.
            **others: the other attributes of this class.

        Raises:
            OptionError: no bundle, two of one name, an unknown setting, or a value that is not accepted.
            ProviderError: an execution provider that this ONNX Runtime does not have.

        Example:
            >>> Settings.of(["shapes"], workers=2).bundles[0].name
            'shapes'
        """
        names = [field.name for field in dataclasses.fields(cls) if field.name not in ("bundles", "limits")]
        for name in others:
            if name not in names:
                raise OptionError(
                    f"unknown setting {shown(name)}: accepted are {', '.join(names)}{did_you_mean(name, names)}"
                )
        checked = {name: _CHECKS[name](name, value) for name, value in others.items()}
        if not isinstance(limits, RequestLimits):
            bounded = {} if checked.get("memory_limit") is None else {"waiting_bytes": _LITTLE_WAITING}
            limits = RequestLimits.of({**bounded, **(limits or {})})
        return cls(_served(bundles), limits=limits, **checked)


def _served(bundles: Iterable[ServedBundle | str | os.PathLike[str]]) -> tuple[ServedBundle, ...]:
    """Bundles with their names.

    Raises:
        OptionError: none, a name that is not accepted, or two bundles of one name.
    """
    found = [[item] if isinstance(item, ServedBundle) else find_bundles([item]) for item in bundles]
    served = tuple(itertools.chain.from_iterable(found))
    if not served:
        raise OptionError("no bundle to serve; accepted are folders that `ortcam export` wrote, or shapes")
    names: set[str] = set()
    for item in served:
        if not _NAME.fullmatch(item.name):
            raise OptionError(
                f"name {shown(item.name)}: accepted are up to 100 letters, digits, dots, hyphens and underscores; "
                "--name gives a bundle another name"
            )
        for name in (item.name, item.name + _EXPLAINS):
            if name in names:
                raise OptionError(f"two models are called {shown(name)}; --name gives a bundle another name")
            names.add(name)
    return served


def _number(accepted: Range, value: object) -> Any:
    """A number or the text of one.

    Raises:
        OptionError: neither, or out of range.
    """
    if isinstance(value, str):
        try:
            value = accepted.read(value)
        except ValueError:
            raise OptionError(f"{accepted.name}={shown(value)}: accepted is {accepted.words}") from None
    if not accepted.whole and accepted.holds(value):
        return float(value)  # type: ignore[arg-type]
    return accepted.check(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{name}={shown(value)}: accepted is true or false")
    return value


def _text(name: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise OptionError(f"{name}={shown(value)}: accepted is a text")
    return value


def _host(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable() or " " in value:
        raise OptionError(f"{name}={shown(value)}: accepted is an address or a name, such as 0.0.0.0")
    return value


def _token(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,4096}", value):
        raise OptionError(f"{name}: accepted are 1 to 4096 letters, digits and signs of ASCII, without spaces")
    return value


def _origins(name: str, value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence):
        raise OptionError(f"{name}={shown(value)}: accepted are origins, such as https://example.org, or *")
    for origin in values:
        if not isinstance(origin, str) or not (origin == "*" or re.fullmatch(r"https?://[^/\s,]+", origin)):
            raise OptionError(f"{name}={shown(origin)}: accepted are origins, such as https://example.org, or *")
    return tuple(values)


def _providers(_: str, value: object) -> tuple[Provider, ...] | None:
    if value is None:
        return None
    chosen: Any = [value] if isinstance(value, str) else value
    resolve_providers(chosen)
    return tuple(chosen)


def _path(name: str, value: object) -> Path | None:
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise OptionError(f"{name}={shown(value)}: accepted is the path of a file")
    return Path(value)


_CHECKS: Final[dict[str, Any]] = {
    "host": _host,
    "port": lambda _, value: _number(PORT, value),
    "workers": lambda _, value: _number(_WORKERS, value),
    "threads": lambda _, value: None if value is None else _number(THREADS, value),
    "providers": _providers,
    "precision": _text,
    "memory_limit": lambda _, value: None if value is None else _number(MEMORY_LIMIT, value),
    "token": _token,
    "cors": _origins,
    "ui": _flag,
    "watch": _flag,
    "drain_seconds": lambda _, value: _number(_DRAIN, value),
    "log_file": _path,
    "decoders": lambda _, value: _number(_DECODERS, value),
}
