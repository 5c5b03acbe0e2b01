"""One thread for numpy's products while an image is explained, and BLAS's own afterwards."""

import threading

import pytest

from ortcam.support.blas import single_threaded


@pytest.mark.parametrize("leaving", [(0, 1), (1, 0)])
def test_threads_that_explain_side_by_side_leave_blas_its_threads(leaving: tuple[int, int]) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads() -> list[int]:
        """Of numpy's BLAS; others may have been loaded since."""
        libraries = threadpoolctl.threadpool_info()
        return [item["num_threads"] for item in libraries if item["user_api"] == "blas" and "numpy" in item["filepath"]]

    @single_threaded
    def explain(entered: threading.Event, leave: threading.Event) -> None:
        entered.set()
        assert leave.wait(60)

    before = threads()
    workers = []
    for _ in leaving:
        entered, leave = threading.Event(), threading.Event()
        worker = threading.Thread(target=explain, args=(entered, leave))
        worker.start()
        assert entered.wait(60)
        workers.append((worker, leave))
    assert set(threads()) == {1}
    for index in leaving:
        worker, leave = workers[index]
        leave.set()
        worker.join(60)
    assert threads() == before
    assert set(single_threaded(threads)()) == {1}
