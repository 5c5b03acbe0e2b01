"""Which tests `make test` and `make test-slow` run, and how their workers share a machine: one core each."""

import os
import time
from collections.abc import Iterator

import pytest

# More would take more memory than a usual machine has: PyTorch alone needs half a gigabyte per worker.
_MOST_WORKERS = 8
# Of a slow test with more cases than this `make test-slow` runs every fourth, and `make test-thorough` the others.
_MOST_CASES = 4


def _cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def _stay_on_one_core(worker: str | None) -> None:
    """Before anything is imported that starts threads.

    ONNX Runtime, PyTorch, OpenBLAS and OpenCV each start as many threads as the process has cores. Workers side by side
    would wait for each other. Processes that a test starts stay on the core, too.
    """
    if worker is not None and hasattr(os, "sched_setaffinity"):
        cores = _cores()
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


_stay_on_one_core(os.environ.get("PYTEST_XDIST_WORKER"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The workers of `--numprocesses auto`."""
    return min(len(_cores()), _MOST_WORKERS)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark as slow what is long or what `@pytest.mark.sample` leaves out, and as thorough what slow tests leave out.

    Slow tests come last, long ones behind the others, and of both the first case of each before the second of any.
    """
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(pytest.mark.slow)
    for test, cases in _by_test(items, "sample").items():
        sample = cases[0].get_closest_marker("sample")
        others = [case for case in cases if case not in _sample(cases, *sample.args, **sample.kwargs)]
        if len(others) == len(cases) and not any("::" in argument for argument in config.args):
            raise pytest.UsageError(f"no case is in the sample of {test}")
        for case in others:
            case.add_marker(pytest.mark.slow)
    for cases in _by_test(items, "slow").values():
        if len(cases) > _MOST_CASES and cases[0].get_closest_marker("whole") is None:
            for place, case in enumerate(cases):
                if place % _MOST_CASES:
                    case.add_marker(pytest.mark.thorough)
    yield
    quick = [item for item in items if item.get_closest_marker("slow") is None]
    groups: list[list[pytest.Item]] = [[], [], [], []]
    for cases in _by_test(items, "slow").values():
        first, repeats = groups[2:] if cases[0].get_closest_marker("long") is not None else groups[:2]
        first.append(cases[0])
        repeats += cases[1:]
    items[:] = quick + _shared_out(*groups, workers=int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _shared_out(*groups: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests in as many equal parts as there are workers, each with its share of every group, in their order.

    xdist gives each worker such a part.
    """
    total, found = sum(map(len, groups)), list[pytest.Item]()
    *others, last = groups
    for worker in range(workers):
        for group in others:
            found += group[len(group) * worker // workers : len(group) * (worker + 1) // workers]
        rest = max(0, total * (worker + 1) // workers - len(found))
        found += last[:rest]
        last = last[rest:]
    return found + last


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin no slow test after the end of time, a Unix time in $ORTCAM_TEST_UNTIL, which CI sets."""
    until = os.environ.get("ORTCAM_TEST_UNTIL")
    if until and item.get_closest_marker("slow") is not None and time.time() > float(until):
        pytest.skip("no time left for more slow tests (ORTCAM_TEST_UNTIL)")


def _by_test(items: list[pytest.Item], marker: str) -> dict[str, list[pytest.Item]]:
    """The cases that are marked so, by the name of their test."""
    found: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker(marker) is not None:
            found.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return found


def _sample(cases: list[pytest.Item], *names: str, every: int | None = None) -> list[pytest.Item]:
    """Every nth case, or those that have one of these names as a parameter or as their id."""
    if every is not None:
        return cases[::every]
    parameters = [case.callspec.params.values() for case in cases]
    own = [{value for value in values if isinstance(value, str)} for values in parameters]
    return [
        case for case, values in zip(cases, own, strict=True) if not (values | {case.callspec.id}).isdisjoint(names)
    ]
