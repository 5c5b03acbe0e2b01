"""What `make test` runs of the tests, and how their workers share a machine: one core each."""

import os

import pytest

# More would take more memory than a usual machine has: PyTorch alone needs half a gigabyte per worker.
_MOST_WORKERS = 8


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what `@pytest.mark.sample` leaves to `make test-slow`."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sample") is not None:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for test, its_cases in cases.items():
        sample = its_cases[0].get_closest_marker("sample")
        others = [case for case in its_cases if case not in _sample(its_cases, *sample.args, **sample.kwargs)]
        if len(others) == len(its_cases) and not any("::" in argument for argument in config.args):
            raise pytest.UsageError(f"no case is in the sample of {test}")
        for case in others:
            case.add_marker(pytest.mark.slow)


def _sample(cases: list[pytest.Item], *names: str, every: int | None = None) -> list[pytest.Item]:
    """Every nth case, or those that have one of these names as a parameter or as their id."""
    if every is not None:
        return cases[::every]
    parameters = [case.callspec.params.values() for case in cases]
    own = [{value for value in values if isinstance(value, str)} for values in parameters]
    return [
        case for case, values in zip(cases, own, strict=True) if not (values | {case.callspec.id}).isdisjoint(names)
    ]
