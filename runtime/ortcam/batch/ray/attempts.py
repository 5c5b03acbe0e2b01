"""Images that end the process which works on them: Ray would try them again for ever, so somebody has to count."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

__all__ = ["Attempts", "attempted", "attempts_actor"]

_MOST: Final = 2  # times that an image may end its process when it is alone


class Attempts:
    """What was begun and not ended, by stage and number of the item. An actor beside the driver; small and quick."""

    def __init__(self) -> None:
        self._together: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._alone: defaultdict[tuple[str, int], int] = defaultdict(int)

    def begin(self, stage: str, numbers: Sequence[int]) -> bool:
        """Items are begun together. True if some of them were begun before, and never ended."""
        known = False
        for number in numbers:
            known = known or (stage, number) in self._together
            self._together[stage, number] += 1
        return known

    def begin_alone(self, stage: str, number: int, before: int | None = None) -> bool:
        """An item is begun alone, after the one before it ended. False if that has ended the process too often."""
        if before is not None:
            self._alone.pop((stage, before), None)
        if self._alone[stage, number] >= _MOST:
            return False
        self._alone[stage, number] += 1
        return True

    def end(self, stage: str, numbers: Sequence[int]) -> None:
        """Items have ended, well or with an error."""
        for number in numbers:
            self._together.pop((stage, number), None)
            self._alone.pop((stage, number), None)


def attempts_actor() -> Any:
    """Start the actor on the machine of the driver: it needs no processor, and ends with the batch."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Attempts).options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here, max_concurrency=1
    )
    return actor.remote()


@contextlib.contextmanager
def attempted(actor: Any, stage: str, numbers: Sequence[int]) -> Iterator[Callable[[int], bool]]:
    """Work on items together, and one by one if one of them has ended a process.

    Args:
        actor: of `attempts_actor`.
        stage: of the pipeline.
        numbers: of the items.

    Yields:
        Called with the number of an item before it is begun: false if it must be left alone.
    """
    before: int | None = None

    def may_begin(number: int) -> bool:
        nonlocal before
        allowed = bool(ray.get(actor.begin_alone.remote(stage, number, before)))
        before = number if allowed else None  # of one that is left alone, the count stays
        return allowed

    known = ray.get(actor.begin.remote(stage, list(numbers)))
    yield may_begin if known else lambda _: True
    actor.end.remote(stage, list(numbers))
