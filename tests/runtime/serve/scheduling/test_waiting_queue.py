"""`Waiting`: bundles share the time and not the number of calls, and none of them fills the queue."""

from ortcam.serve.scheduling.waiting import Waiting


def serve(queue: Waiting[str], seconds: dict[str, float], total: float) -> dict[str, float]:
    """Take calls one after the other, each of which takes the seconds of its bundle; how much each bundle had."""
    had = dict.fromkeys(seconds, 0.0)
    while sum(had.values()) < total:
        found = queue.pop()
        assert found is not None
        name, _ = found
        queue.done(name, seconds[name])
        had[name] += seconds[name]
        queue.push(name, "again")
    return had


def test_two_bundles_get_the_same_time_whatever_their_calls_take() -> None:
    queue: Waiting[str] = Waiting(100)
    for name in ("fast", "slow"):
        for _ in range(10):
            assert queue.push(name, "first")
    had = serve(queue, {"fast": 0.1, "slow": 5.0}, 1000)
    assert abs(had["fast"] - had["slow"]) <= 2 * 5.0  # one call that has just ended, and one that was expected


def test_within_a_bundle_the_first_that_came_is_first() -> None:
    queue: Waiting[int] = Waiting(10)
    for number in range(5):
        queue.push("a", number)
    assert [queue.pop() for _ in range(6)] == [*(("a", number) for number in range(5)), None]


def test_who_was_away_has_no_claim_to_the_time_that_passed() -> None:
    queue: Waiting[str] = Waiting(100)
    for _ in range(20):
        queue.push("busy", "x")
    serve(queue, {"busy": 1.0}, 500)
    for _ in range(20):
        queue.push("back", "x")
    had = serve(queue, {"busy": 1.0, "back": 1.0}, 20)
    assert abs(had["busy"] - had["back"]) <= 2


def test_what_runs_counts_before_it_has_ended() -> None:
    queue: Waiting[int] = Waiting(100)
    for number in range(4):
        queue.push("a", number)
        queue.push("b", number)
    first, second = queue.pop(), queue.pop()
    assert first is not None
    assert second is not None
    assert {first[0], second[0]} == {"a", "b"}
    assert queue.seconds() == 8.0  # the first guess is one second for each
    queue.done(first[0], 3.0)
    queue.done(second[0], 0.0, typical=False)
    assert (queue.expected(first[0]), queue.expected(second[0])) == (3.0, 1.0)
    assert queue.seconds(first[0]) == 9.0


def test_a_bundle_leaves_a_place_to_each_other_one() -> None:
    queue: Waiting[int] = Waiting(4, ["a", "b", "c"])
    taken = [queue.push("a", number) for number in range(4)]
    assert taken == [True, True, False, False]
    assert queue.push("b", 0)
    assert queue.push("c", 0)
    assert not queue.push("b", 1)
    assert queue.push("b", 1, always=True)


def test_without_places_only_idle_threads_take_calls() -> None:
    queue: Waiting[int] = Waiting(0)
    assert not queue.push("a", 0)
    assert queue.push("a", 0, idle=1)
    assert not queue.push("a", 1, idle=1)


def test_what_left_the_queue_is_not_taken() -> None:
    queue: Waiting[str] = Waiting(10)
    queue.push("a", "first")
    queue.push("a", "second")
    assert queue.remove("a", "first")
    assert not queue.remove("a", "first")
    assert not queue.remove("b", "second")
    assert queue.pop() == ("a", "second")
    assert len(queue) == 0
