"""Requests of all kinds leave nothing behind: a server is as large after 3,000 of them as after 1,000."""

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.common.images import encoded, photograph
from tests.runtime.serve.faults.mutations import Asking, seeds
from tests.runtime.serve.faults.right_answers import right
from tests.runtime.serve.faults.server import eventually, serving

CLIENTS = 4
MB = 1_000_000
LARGE = encoded(photograph(700, 800), "JPEG", quality=90)  # 1.68 MB of pixels
# 2,000 requests that each left its answer behind, small as it is (10 kB), would be as much; with its image, 3 GB.
LARGEST_GROWTH = 2000 * 10_000


def asking() -> list[Asking]:
    """Requests of every protocol that are right, and some that are refused; most with a large image."""
    large = {"Content-Type": "image/jpeg"}
    paths = ("predict", "explain", "explain?overlay=png", "explain?method=scorecam&map=full", "explain?method=no-such")
    found = [Asking(f"/v1/models/tiny:{path}", LARGE, large) for path in paths]
    found.append(Asking("/v1/models/tiny:explain", LARGE, large | {"Prefer": "respond-async"}))
    found.append(Asking("/v1/models/tiny:explain", LARGE[:-100], large))
    found.append(Asking("/v1/models/tiny:explain?method=scorecam", LARGE, large | {"Accept": "text/event-stream"}))
    return [*found * 3, *seeds("tiny")]


@pytest.mark.long
def test_memory_is_flat_over_3000_requests(tmp_path: Path, tiny_bundle: Path) -> None:
    requests = asking()

    with right(tiny_bundle, LARGE) as answers, serving(tmp_path, tiny_bundle, "--limit", "job_seconds=1") as server:

        def ask_some(first: int, last: int) -> set[int]:
            with contextlib.closing(server.client()) as client:
                some = itertools.islice(itertools.cycle(requests), first, last, CLIENTS)
                return {client.ask(one.path, one.body, **one.headers).status for one in some}

        sizes = {}
        with ThreadPoolExecutor(CLIENTS) as pool:
            for count in (1000, 2000, 3000):
                firsts = range(count - 1000, count - 1000 + CLIENTS)
                statuses = set().union(*pool.map(ask_some, firsts, [count] * CLIENTS))
                assert {200, 202, 422} <= statuses <= {200, 202, 422, 429}
                eventually(lambda: server.metric("ortcam_jobs") == 0, server)
                eventually(lambda: server.metric("ortcam_requests_running") == 1, server)  # the one that asks
                sizes[count] = server.memory()
        answers.check_server(server)
        print({count: f"{size / MB:.1f} MB" for count, size in sizes.items()})
        assert sizes[3000] - sizes[1000] < LARGEST_GROWTH, sizes
