"""Workers times threads never exceed the cores, and threads that give way have the lower priority."""

import os
import sys
import threading

import pytest

from ortcam.serve.scheduling.cores import Shares, give_way, share_cores


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("threads", [None, 1, 2, 16])
def test_workers_times_threads_never_exceed_the_cores(cores: int, workers: int, threads: int | None) -> None:
    shares = share_cores(workers, threads, cores=cores)
    assert 1 <= shares.workers <= workers
    assert 1 <= shares.threads <= (threads or cores)
    assert shares.workers * shares.threads <= cores


def test_one_worker_gets_all_cores() -> None:
    assert share_cores(1, cores=6) == Shares(6, 1, 6)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has a priority per thread")
def test_a_thread_gives_way_with_what_it_starts_and_nobody_else() -> None:
    found: dict[str, int] = {}

    def look(who: str) -> None:
        found[who] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def run() -> None:
        give_way()
        look("thread")
        child = threading.Thread(target=look, args=("child",))
        child.start()
        child.join()

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    look("caller")
    assert found["caller"] == before
    assert found["thread"] == found["child"]
    assert before < found["thread"] <= 19 or before == 19
