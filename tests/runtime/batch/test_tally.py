"""What a tally counts, and whom it tells."""

import threading

from ortcam.batch.output.rows import Row
from ortcam.batch.progress import Snapshot, Tally


def test_images_rows_and_failures_are_counted_and_told() -> None:
    seen: list[Snapshot] = []
    failures: list[tuple[str, str]] = []
    tally = Tally(seen.append, lambda name, error: failures.append((name, error)))
    tally.expect(10)
    tally.add([Row("a", "a", 1), Row("a", "a", 2)])
    tally.add([Row("b", "b", error="is no image")])
    tally.count(images=3, rows=5, failures=[("c", "gone")])
    tally.skip(4)
    now = tally.snapshot()
    assert (now.images, now.rows, now.failures, now.skipped, now.total) == (5, 8, 2, 4, 10)
    assert failures == [("b", "is no image"), ("c", "gone")]
    assert [item.images for item in seen] == [0, 1, 2, 5, 5]


def test_time_left_follows_from_the_pace_so_far() -> None:
    assert Snapshot(images=5, total=15, seconds=2.0).seconds_left == 4.0
    assert Snapshot(images=5, total=15, seconds=2.0).images_per_second == 2.5
    assert Snapshot(images=20, total=15, seconds=2.0).seconds_left == 0  # INPUT has grown
    assert Snapshot(images=0, total=15, seconds=2.0).seconds_left is None
    assert Snapshot(images=5, seconds=2.0).seconds_left is None


def test_threads_lose_no_count() -> None:
    tally = Tally()
    threads = [threading.Thread(target=lambda: [tally.count(images=1, rows=2) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tally.snapshot().images, tally.snapshot().rows) == (2000, 4000)


def test_a_total_that_was_too_low_is_not_known() -> None:
    seen: list[Snapshot] = []
    tally = Tally(seen.append)
    tally.expect(1)
    tally.count(images=1, rows=1)
    tally.count(images=1, rows=1)
    assert [now.total for now in seen] == [1, 1, None]
    tally.expect(1)
    assert seen[-1].total is None
