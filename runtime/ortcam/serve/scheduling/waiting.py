"""`Waiting`: a bounded queue that is fair to bundles, and knows how long what waits in it is likely to take."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

__all__ = ["Waiting"]

_Item = TypeVar("_Item")

_FIRST_GUESS: Final = 1.0  # seconds that a call of a bundle takes, before one has ended
_NEWEST: Final = 0.3  # weight of the newest time in the mean


class _Bundle(Generic[_Item]):
    """What waits of one bundle, and the time it has had."""

    def __init__(self) -> None:
        self.items: deque[_Item] = deque()
        self.spent = 0.0
        self.running = 0
        self.charged = 0.0
        self.mean: float | None = None

    @property
    def expected(self) -> float:
        """Seconds that a call is likely to take."""
        return _FIRST_GUESS if self.mean is None else self.mean


class Waiting(Generic[_Item]):
    """Calls that wait, of several bundles. It has no lock: its owner has one.

    The next call is one of the bundle that has had the least time so far, and within a bundle the first that came. A
    bundle that asked for nothing for a while has no claim to the time that others used meanwhile: it begins with as
    much as the bundle that was served last (start-time fair queueing: Goyal, Vin & Cheng, SIGCOMM 1996).

    A bundle cannot fill the queue: a place is kept for each other bundle that has no call here, up to half of the
    places.
    """

    def __init__(self, places: int, names: Iterable[str] = ()) -> None:
        """Begin with nothing.

        Args:
            places: calls that may wait.
            names: of the bundles.
        """
        self._places = places
        self._bundles: dict[str, _Bundle[_Item]] = {name: _Bundle() for name in names}
        self._now = 0.0

    def __len__(self) -> int:
        return sum(len(bundle.items) for bundle in self._bundles.values())

    def __iter__(self) -> Iterator[_Item]:
        for bundle in self._bundles.values():
            yield from bundle.items

    def push(self, name: str, item: _Item, *, idle: int = 0, always: bool = False) -> bool:
        """Put a call at the end; false if there is no place for it.

        Args:
            name: of its bundle.
            item: the call.
            idle: threads that wait for calls, and so take as many more of them.
            always: whether there is a place for this call in any case.
        """
        bundle = self._bundles.setdefault(name, _Bundle())
        others = sum(
            1 for other in self._bundles.values() if other is not bundle and not (other.items or other.running)
        )
        if not always and len(self) >= idle + self._places - min(others, self._places // 2):
            return False
        if not bundle.items and not bundle.running:
            bundle.spent = max(bundle.spent, self._now)
        bundle.items.append(item)
        return True

    def pop(self) -> tuple[str, _Item] | None:
        """Take the next call: its bundle is charged with the time that it is likely to take, until `done` corrects it.

        Returns:
            The name of its bundle, and the call; None if none waits.
        """
        waiting = [(bundle.spent, name) for name, bundle in self._bundles.items() if bundle.items]
        if not waiting:
            return None
        self._now, name = min(waiting)
        bundle = self._bundles[name]
        bundle.running += 1
        bundle.charged += bundle.expected
        bundle.spent += bundle.expected
        return name, bundle.items.popleft()

    def remove(self, name: str, item: _Item) -> bool:
        """Take out a call that no longer waits for its turn; false if it is not here."""
        bundle = self._bundles.get(name)
        if bundle is None or item not in bundle.items:
            return False
        bundle.items.remove(item)
        return True

    def done(self, name: str, seconds: float, *, typical: bool = True) -> None:
        """A call of a bundle that was taken has ended.

        Args:
            name: of the bundle.
            seconds: that it took.
            typical: whether others are likely to take about as long; not if it was refused or abandoned.
        """
        bundle = self._bundles[name]
        charged = bundle.charged / bundle.running
        bundle.charged -= charged
        bundle.running -= 1
        bundle.spent += seconds - charged
        if typical:
            bundle.mean = seconds if bundle.mean is None else _NEWEST * seconds + (1 - _NEWEST) * bundle.mean

    def expected(self, name: str) -> float:
        """Seconds that a call of a bundle is likely to take."""
        return self._bundles.setdefault(name, _Bundle()).expected

    def seconds(self, name: str | None = None) -> float:
        """Seconds that one thread is likely to need for the calls that wait or run: of one bundle, or of all."""
        bundles = self._bundles.values() if name is None else [self._bundles.setdefault(name, _Bundle())]
        return sum(bundle.expected * len(bundle.items) + bundle.charged for bundle in bundles)
