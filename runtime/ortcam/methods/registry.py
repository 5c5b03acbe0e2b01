"""The table of all methods: those that ortcam ships, those that a program registers, those of installed packages."""

import importlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, overload

from ortcam.engine.forking import ForkLock
from ortcam.errors import OptionError
from ortcam.methods.attention import ATTENTION_METHODS
from ortcam.methods.auto import AUTO_METHOD
from ortcam.methods.common import COMMON_OPTIONS, augmentation_of
from ortcam.methods.gradient import GRADIENT_METHODS
from ortcam.methods.head_only import HEAD_METHODS
from ortcam.methods.masked import MASKED_METHODS
from ortcam.methods.method import Method, Settings
from ortcam.methods.rules import check_method
from ortcam.support.ranges import shown
from ortcam.support.suggestions import did_you_mean

__all__ = ["ENTRY_POINTS", "METHODS", "Methods", "register", "resolve_method", "unregister"]

# The group of entry points in which an installed package names its methods.
ENTRY_POINTS: Final = "ortcam.methods"


class EntryPoint(Protocol):
    """What is used of `importlib.metadata.EntryPoint`."""

    @property
    def name(self) -> str:
        """As the package wrote it."""

    @property
    def value(self) -> str:
        """Module and attribute."""

    def load(self) -> object:
        """Import the module and return the attribute."""


class Methods(Sequence[Method]):
    """A table of methods that grows; several threads may read it and add to it at once.

    To list it, and to look up a name that is not in it, loads what installed packages offer. That happens once, and
    not before, since it takes time to look through all installed packages.
    """

    def __init__(self, methods: Iterable[Method], *, plugins: Callable[[], Iterable[EntryPoint]]) -> None:
        """Begin with the methods given.

        Args:
            methods: rows that are known to be right.
            plugins: finds the entry points of installed packages.
        """
        self._shipped = tuple(methods)
        self._methods = self._shipped
        self._plugins = plugins
        self._changing = ForkLock()
        self._loading = ForkLock()
        self._loader: int | None = None
        self._loaded = False

    def register(self, method: Method) -> None:
        """Add a method.

        Raises:
            OptionError: it is not well formed, or another method has one of its names.
        """
        check_method(method)
        with self._changing:
            if any(method is known for known in self._methods):
                return
            taken = _by_spelling((*self._methods, AUTO_METHOD))
            for spelling in (method.name, *method.aliases):
                if spelling in taken:
                    raise OptionError(
                        f"method {method.name!r}: the name {spelling!r} is taken by {taken[spelling].name!r}"
                    )
            self._methods = (*self._methods, method)

    def unregister(self, name: str) -> None:
        """Take a registered method out again.

        Raises:
            OptionError: no registered method has this name.
        """
        with self._changing:
            found = _by_spelling(self._methods).get(str(name).lower())
            if found is None or found in self._shipped:
                raise OptionError(f"{shown(name)} is no registered method")
            self._methods = tuple(method for method in self._methods if method is not found)

    def find(self, name: object) -> Method | None:
        """The method of a name or an alias, in any case; None where there is none."""
        if not isinstance(name, str):
            return None
        found = _by_spelling(self._methods).get(name.lower())
        return found or _by_spelling(self._listed()).get(name.lower())

    def place(self, method: Method | None) -> int:
        """Where a method stands in the table; behind all of them for None."""
        places = {id(item): place for place, item in enumerate(self._methods)}
        return places.get(id(method), len(places))

    @overload
    def __getitem__(self, index: int) -> Method: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Method, ...]: ...
    def __getitem__(self, index: int | slice) -> Method | tuple[Method, ...]:
        return self._listed()[index]

    def __len__(self) -> int:
        return len(self._listed())

    def __iter__(self) -> Iterator[Method]:
        return iter(self._listed())

    def __repr__(self) -> str:
        return f"<Methods: {', '.join(method.name for method in self)}>"

    def _listed(self) -> tuple[Method, ...]:
        """All methods, with those of installed packages."""
        # A package that lists the methods while it is loaded sees what is there so far.
        if not self._loaded and self._loader != threading.get_ident():
            with self._loading:
                if not self._loaded:
                    self._load_all()
        return self._methods

    def _load_all(self) -> None:
        self._loader = threading.get_ident()
        try:
            for entry_point in sorted(self._plugins(), key=lambda found: found.name):
                self._load(entry_point)
            self._loaded = True
        finally:
            self._loader = None

    def _load(self, entry_point: EntryPoint) -> None:
        """Register what an installed package offers; a warning where that fails, since the others still work."""
        try:
            offered = entry_point.load()
            for method in offered if isinstance(offered, list | tuple) else (offered,):
                self.register(method)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a package of somebody else
            reason = error if isinstance(error, OptionError) else f"{type(error).__name__}: {error}"
            warnings.warn(
                f"the method plugin {entry_point.name!r} ({entry_point.value}) cannot be loaded: {reason}",
                stacklevel=5,
            )


def _installed() -> Iterable[EntryPoint]:
    metadata = importlib.import_module("importlib.metadata")  # takes time, and is rarely needed
    found: Iterable[EntryPoint] = metadata.entry_points(group=ENTRY_POINTS)
    return found


METHODS: Final = Methods((*MASKED_METHODS, *HEAD_METHODS, *GRADIENT_METHODS, *ATTENTION_METHODS), plugins=_installed)


def register(method: Method) -> None:
    """Add a method to `ortcam.METHODS`, for this process.

    From then on everything that takes a method takes it: `explain`, `evaluate`, the command line's help, sheets. An
    installed package offers its methods instead, under the entry-point group `ortcam.methods`: an entry point is a
    `Method` or a list of them.

    Args:
        method: a masked or a head-only method. The same one again changes nothing.

    Raises:
        OptionError: it has not exactly one of `plan` and `compute`, a name or an option is not well formed, a default
            is not accepted, or another method has one of its names.

    Example:
        >>> from ortcam.methods import Method, Plan, register, unregister
        >>> register(Method(
        ...     "relu-cam", "ReLU-CAM", "Score-CAM with ReLU in place of the scaling to [0,1].",
        ...     plan=lambda options: Plan(normalize=None, gate="relu", gate_sum=True),
        ...     formula="sum_k p(X * relu(U(A_k)))[c] relu(U(A_k))", cost="1 per channel",
        ...     source="none", use="Choose it to try out `register`.",
        ... ))
        >>> unregister("relu-cam")
    """
    METHODS.register(method)


def unregister(name: str) -> None:
    """Take a method that was registered out of `ortcam.METHODS` again, say to register a changed one.

    Raises:
        OptionError: no registered method has this name.
    """
    METHODS.unregister(name)


def resolve_method(
    name: str, options: Mapping[str, object], *, among: Callable[[Method], bool] = lambda _: True
) -> Settings:
    """A method by name with its options checked and completed.

    Args:
        name: name or alias, in any case; "auto" stands for a method that is chosen when the bundle is known.
        options: values, or the strings of the command line: of the method, and those that every method has.
        among: which methods the message lists where it is unknown.

    Raises:
        OptionError: an unknown method or option, or a value that is not accepted; the message lists what is.
    """
    method = AUTO_METHOD if str(name).lower() == AUTO_METHOD.name else METHODS.find(name)
    if method is None:
        names = [AUTO_METHOD.name, *(item.name for item in METHODS if among(item))]
        hint = did_you_mean(str(name), names)
        raise OptionError(f"unknown method {shown(name)}; accepted: {', '.join(names)}{hint}")
    own = {option.name: option for option in method.options}
    known = own | {option.name: option for option in COMMON_OPTIONS}
    given: dict[str, object] = {}
    for key, value in options.items():
        if key not in known:
            raise OptionError(_unknown_option(method, key))
        try:
            given[key] = known[key].parse(value)
        except (ValueError, TypeError, KeyError):
            raise OptionError(
                f"{method.name}: {key}={shown(value)} is not accepted; accepted: {known[key].accepted}"
            ) from None
    complete = method.defaults | {key: value for key, value in given.items() if key in own}
    augmentation = augmentation_of(method.name, {key: value for key, value in given.items() if key not in own})
    return Settings(method, complete, None if method.plan is None else method.plan(complete), augmentation)


def _unknown_option(method: Method, key: str) -> str:
    """Say that a method has no such option, and what has it or what the method has."""
    common = [option.name for option in COMMON_OPTIONS]
    if method is AUTO_METHOD:
        having = [item.name for item in METHODS if key in item.defaults]
        if having:
            return f"auto: the option {key!r} goes with a method: name one that has it, {' or '.join(having)}"
    known = [*method.defaults, *common]
    hint = did_you_mean(key, known)
    own = ", ".join(method.defaults) or "none of its own"
    return f"{method.name}: unknown option {key!r}; accepted: {own}, and of every method {', '.join(common)}{hint}"


def _by_spelling(methods: Iterable[Method]) -> dict[str, Method]:
    return {spelling: method for method in methods for spelling in (method.name, *method.aliases)}
