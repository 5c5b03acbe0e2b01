"""The verdict says what interval and adjusted p agree on, for any number of methods, metrics and images."""

import dataclasses
import doctest

import numpy as np
import pytest

from ortcam.evaluation.entries import Baseline, Entry
from ortcam.evaluation.journal import Failure
from ortcam.evaluation.metrics import METRICS
from ortcam.evaluation.report import verdict as module
from ortcam.evaluation.report.terminal import in_words
from ortcam.evaluation.report.verdict import Verdict, reach_verdict
from ortcam.evaluation.results import Results, Summary
from ortcam.evaluation.statistics import Difference, Interval

TITLES = {"a": "A-CAM", "b": "B-CAM", "c": "C-CAM", "random-weights": "Random weights", "mean-activation": "Mean"}
BASELINES = ("random-weights", "mean-activation")
GAIN, COHERENCY, COMPLEXITY = "average-gain", "coherency", "complexity"


def decided(
    won: dict[str, list[tuple[str, str]]],
    *,
    names: str = "ab",
    baselines: tuple[str, ...] = (),
    n: int = 40,
    disagree: dict[str, list[tuple[str, str]]] | None = None,
    failures: list[Failure] | None = None,
    flat: int = 0,
    seconds: tuple[float, ...] = (1, 1, 1),
) -> tuple[Verdict, Results, Summary]:
    """The verdict on an evaluation in which, by metric, the first of each pair is better than the second."""
    everyone = [*names, *baselines]
    entries = [
        Entry(name, TITLES[name], baseline=Baseline(name) if name in BASELINES else None)  # type: ignore[arg-type]
        for name in everyone
    ]
    metrics = [metric for metric in METRICS if metric.name in won]
    ends = (None, None) if n < 10 else (40.0, 60.0)
    apart = {
        metric: [
            Difference(first, second, Interval(0, *ends, n), 0.01, 0.01, 0.5, better, (first, second) in odd)
            for place, first in enumerate(everyone)
            for second in everyone[place + 1 :]
            for better in [_better(first, second, pairs)]
            for odd in [(disagree or {}).get(metric, [])]
        ]
        for metric, pairs in won.items()
    }
    summary = Summary({name: {metric: Interval(50, *ends, n) for metric in won} for name in everyone}, apart)
    columns = {name: np.full(n, 50.0) for name in everyone}
    results = Results(
        images=[f"{index}.png" for index in range(n)],
        variants=entries,
        metrics=metrics,
        values={name: dict.fromkeys(won, column) for name, column in columns.items()},
        label=np.full(n, -1),
        target=np.zeros(n, np.int64),
        probability=np.ones(n),
        masked=columns,
        seconds={name: np.full(n, seconds[min(place, 2)]) for place, name in enumerate(everyone)},
        passes=columns,
        flat={name: np.arange(n) < (flat if name == "a" else 0) for name in everyone},
        bands={},
    )
    return reach_verdict(results, summary, failures or []), results, summary


def _better(first: str, second: str, pairs: list[tuple[str, str]]) -> str | None:
    if (first, second) in pairs:
        return first
    return second if (second, first) in pairs else None


def said(verdict: Verdict) -> str:
    return "\n".join(sentence.text for sentence in verdict.sentences)


def test_the_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(module).failed == 0


def test_of_two_methods_each_wins_its_metrics_and_the_rest_is_open() -> None:
    verdict, *_ = decided({GAIN: [("a", "b")], COHERENCY: [("b", "a")], COMPLEXITY: []})
    assert verdict.short == ("A-CAM wins 1 of 3 metrics, B-CAM wins 1, 1 stays open.",)
    assert said(verdict).splitlines() == [
        "A-CAM is better than B-CAM on 1 of 3 metrics: Average Gain.",
        "B-CAM is better than A-CAM on 1 of 3 metrics: Coherency.",
        "A-CAM and B-CAM cannot be told apart on 1 of 3 metrics: Complexity.",
    ]


def test_a_tie_on_everything_has_no_winner() -> None:
    verdict, *_ = decided({GAIN: [], COHERENCY: []})
    assert verdict.short == ("A-CAM and B-CAM cannot be told apart.",)
    assert said(verdict) == "A-CAM and B-CAM cannot be told apart on all 2 metrics."


def test_among_three_a_winner_is_better_than_every_other_and_leaders_are_named() -> None:
    won = {GAIN: [("a", "b"), ("a", "c")], COHERENCY: [("a", "c")], COMPLEXITY: [("a", "b"), ("b", "c"), ("c", "a")]}
    verdict, *_ = decided(won, names="abc")
    assert verdict.short == ("A-CAM wins 1 of 3 metrics, 2 stay open.",)
    assert "A-CAM is better than every other method on 1 of 3 metrics: Average Gain." in said(verdict)
    # Of b and c nothing is known on coherency; on complexity they go round in a circle.
    assert "No single winner on 2 of 3 metrics: Coherency (led by A-CAM and B-CAM); Complexity." in said(verdict)
    assert verdict.standings[1].leading == ("a", "b")
    assert verdict.standings[1].behind == ("c",)


def test_a_baseline_that_wins_is_named_and_who_beats_all_of_them() -> None:
    won = {
        GAIN: [("random-weights", "b"), ("a", "random-weights"), ("a", "mean-activation")],
        COHERENCY: [(base, name) for base in BASELINES for name in "ab"],
    }
    verdict, *_ = decided(won, baselines=BASELINES)
    assert verdict.short[1] == "A baseline is better than a method on 2 of 2 metrics."
    assert "Random weights (a baseline) is better than B-CAM on Average Gain." in said(verdict)
    assert "Random weights and Mean (baselines) are better than every method on Coherency." in said(verdict)
    assert "Better than every baseline: A-CAM on 1 of 2 metrics and the others on none." in said(verdict)
    assert verdict.standings[0].beaten == {"b": ("random-weights",)}


def test_one_method_is_compared_with_the_baselines_alone() -> None:
    verdict, *_ = decided({GAIN: [("a", base) for base in BASELINES]}, names="a", baselines=BASELINES)
    assert verdict.short == (
        "A-CAM is better than every baseline on 1 of 1 metric.",
        "No baseline is better than a method.",
    )
    assert verdict.standings[0].best is None


@pytest.mark.parametrize("n", [1, 9])
def test_few_images_decide_nothing(n: int) -> None:
    verdict, *_ = decided({GAIN: [], COHERENCY: []}, n=n, baselines=BASELINES)
    few = f"{n} image{'s' * (n > 1)}: too few to call anything better. At least 10 are needed."
    assert verdict.short == (few,)
    assert said(verdict) == few


def test_without_baselines_or_metrics_nothing_is_said_of_them() -> None:
    assert "baseline" not in said(decided({GAIN: [("a", "b")]})[0])
    verdict, *_ = decided({})
    assert verdict.standings == ()
    assert "too few" not in said(verdict) or verdict.short


def test_disagreement_of_interval_and_p_is_open_and_told() -> None:
    verdict, *_ = decided({GAIN: []}, disagree={GAIN: [("a", "b")]})
    assert "A-CAM and B-CAM cannot be told apart on Average Gain." in said(verdict)
    assert "Interval and adjusted p disagree in 1 comparison: it counts as open." in said(verdict)


def test_failures_flat_maps_and_times_are_told() -> None:
    failures = [Failure("x.png", None, "gone"), Failure("0.png", "b", "not a number")]
    verdict, *_ = decided({GAIN: []}, n=20, failures=failures, flat=3, seconds=(0.5, 2, 2))
    assert verdict.short[-1] == "1 of 21 images could not be measured."
    assert "B-CAM failed on 1 image, which the means of all methods leave out." in said(verdict)
    assert "Maps that are the same everywhere and explain nothing: A-CAM (3 of 20)." in said(verdict)
    assert "B-CAM takes 4.0 times as long as A-CAM: 2.0 s against 500 ms per image." in said(verdict)
    assert "20 images are few" in said(verdict)


def test_the_terminal_begins_with_the_verdict_ends_with_the_page_and_fits() -> None:
    long = {f"m{index}": f"ScoreCAM++ (gate sigmoid, budget {index})" for index in range(9)}
    verdict, results, summary = decided({metric.name: [] for metric in METRICS if metric.better}, baselines=BASELINES)
    entries = [dataclasses.replace(results.variants[0], title=title) for title in long.values()]
    results = dataclasses.replace(results, variants=[*entries, *results.variants])
    lines = in_words(results, summary, verdict, "out/report.html").splitlines()
    assert lines[: len(verdict.short)] == list(verdict.short)
    assert lines[-1] == "Open out/report.html"
    assert max(map(len, lines)) <= 80
    assert sum("Average Gain" in line for line in lines) > 1  # columns that do not fit follow below


def test_the_terminal_marks_winners_and_what_a_baseline_beats() -> None:
    found = decided({GAIN: [("a", "b"), ("random-weights", "b")]}, baselines=BASELINES)
    text = in_words(found[1], found[2], found[0], "report.html")
    (row,) = [line.split() for line in text.splitlines() if line.startswith("Average Gain")]
    assert row[3:] == ["50.00*", "50.00!", "50.00", "50.00"]
    assert "* better than every other method" in " ".join(text.split())
    assert "! a baseline is better" in text
