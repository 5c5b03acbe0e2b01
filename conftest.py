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
    found: dict[str, bool] = {}
    for item in items:
        sample = item.get_closest_marker("sample")
        if sample is None:
            continue
        chosen = _in_sample(item, *sample.args, **sample.kwargs)
        if not chosen:
            item.add_marker(pytest.mark.slow)
        test = item.nodeid.partition("[")[0]
        found[test] = found.get(test, False) or chosen
    lost = [test for test, any_chosen in found.items() if not any_chosen]
    if lost and not any("::" in argument for argument in config.args):  # not where a user asks for single cases
        raise pytest.UsageError(f"no case is in the sample of {', '.join(lost)}")


def _in_sample(item: pytest.Item, *names: str, every: int | None = None) -> bool:
    """Whether a case has one of these names as a parameter or in its id, or is every nth; a test of one case is."""
    cases = getattr(item, "callspec", None)
    if cases is None:
        return True
    if every is not None:
        return sum(cases.indices.values()) % every == 0
    own = {cases.id, *(value for value in cases.params.values() if isinstance(value, str))}
    return not own.isdisjoint(names)
