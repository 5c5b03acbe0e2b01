"""The verdict of an evaluation in sentences: who wins on what, which baselines win where, what cannot be told apart.

It reads `Difference.better` and decides nothing itself, so that report.html, summary.json and the terminal say the
same.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeVar

from ortcam.evaluation.journal import Failure
from ortcam.evaluation.results import Results, Summary, median_of_known
from ortcam.evaluation.statistics import FEWEST
from ortcam.support.words import brief_time, counted

__all__ = ["MEANING", "Sentence", "Standing", "Verdict", "reach_verdict"]

MEANING: Final = (
    "“Better” needs two things: the 95 % interval of the paired difference excludes zero, and p of Wilcoxon's "
    "signed-rank test, adjusted for all pairs of the metric, is below 0.05."
)

_NAMES: Final = 13  # that a sentence lists: all metrics, and as many methods
_WINNERS: Final = 3  # that the short form names
_SLOWER: Final = 1.5  # a sentence tells the times if the slowest method takes this many times as long as the fastest
_FEW: Final = 30  # images below which a sentence says that they are few

# What a sentence is about: a win, a comparison that stays open, a baseline that wins, something else to know.
Kind = Literal["win", "open", "baseline", "note"]

_Item = TypeVar("_Item")
_Key = TypeVar("_Key")


@dataclasses.dataclass(frozen=True)
class Standing:
    """How the methods stand on one metric, by their names.

    Attributes:
        metric: its name.
        n: images compared.
        decided: whether these are enough to call anything better.
        best: the method that is better than every other method; None without one, or with one method alone.
        leading: methods that no other method is better than.
        behind: methods that another method is better than.
        baselines: those that were measured.
        above: methods that are better than every baseline.
        beaten: methods that a baseline is better than, each with these baselines.
        disagreements: comparisons with a method where interval and adjusted p disagree.
    """

    metric: str
    n: int
    decided: bool
    best: str | None
    leading: tuple[str, ...]
    behind: tuple[str, ...]
    baselines: tuple[str, ...]
    above: tuple[str, ...]
    beaten: Mapping[str, tuple[str, ...]]
    disagreements: int


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One finding: what it is about, and plain text."""

    kind: Kind
    text: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the statistics allow to say.

    Attributes:
        short: two or three sentences, for a terminal.
        sentences: all findings, the most important first.
        standings: one per metric that has a better side.
    """

    short: tuple[str, ...]
    sentences: tuple[Sentence, ...]
    standings: tuple[Standing, ...]


def reach_verdict(results: Results, summary: Summary, failures: Sequence[Failure] = ()) -> Verdict:
    """Say in sentences what the statistics show.

    Args:
        results: every number.
        summary: means and differences of these results.
        failures: images, or methods on them, that were skipped.
    """
    baselines = {entry.name for entry in results.variants if entry.baseline is not None}
    titles = {entry.name: entry.title for entry in results.variants}
    titles |= {metric.name: metric.title for metric in results.metrics}
    standings = tuple(
        _standing(metric.name, summary, baselines)
        for metric in results.metrics
        if metric.better is not None and any(metric.name in row for row in summary.table.values())
    )
    measured = {name for standing in standings for name in (*standing.leading, *standing.behind)}
    methods = [entry.name for entry in results.variants if entry.name in measured]
    decided = [standing for standing in standings if standing.decided]
    short: list[str] = []
    sentences: list[Sentence] = []
    for say in (_of_methods, _of_baselines):
        in_short, found = say(decided, methods, titles)
        short += in_short
        sentences += found
    if not decided:
        few = f"{counted(len(results.images), 'image')}: too few to call anything better. At least {FEWEST} are needed."
        short.append(few)
        sentences.append(Sentence("open", few))
    unread = sum(failure.variant is None for failure in failures)
    if unread:
        lost = f"{unread} of {counted(len(results.images) + unread, 'image')} could not be measured."
        short.append(lost)
        sentences.append(Sentence("note", lost))
    sentences += [Sentence("note", text) for text in _notes(results, standings, failures, titles)]
    return Verdict(tuple(short), tuple(sentences), standings)


def _standing(metric: str, summary: Summary, all_baselines: Collection[str]) -> Standing:
    measured = {name: row[metric] for name, row in summary.table.items() if metric in row}
    methods = [name for name in measured if name not in all_baselines]
    baselines = tuple(name for name in measured if name in all_baselines)
    found = summary.differences.get(metric, [])
    won = {(item.better, item.worse) for item in found if item.better is not None}
    behind = tuple(name for name in methods if any((other, name) in won for other in methods))
    best = [name for name in methods if all((name, other) in won for other in methods if other != name)]
    beaten = {name: tuple(other for other in baselines if (other, name) in won) for name in methods}
    n = next(iter(measured.values())).n
    return Standing(
        metric=metric,
        n=n,
        decided=n >= FEWEST and any(not {item.first, item.second} <= set(baselines) for item in found),
        best=best[0] if best and len(methods) > 1 else None,
        leading=tuple(name for name in methods if name not in behind),
        behind=behind,
        baselines=baselines,
        above=tuple(name for name in methods if baselines and all((name, other) in won for other in baselines)),
        beaten={name: others for name, others in beaten.items() if others},
        disagreements=sum(item.disagrees and not {item.first, item.second} <= set(baselines) for item in found),
    )


def _of_methods(
    decided: Sequence[Standing], methods: Sequence[str], titles: Mapping[str, str]
) -> tuple[list[str], list[Sentence]]:
    """Methods beside each other: the short form and all findings."""
    contests = [item for item in decided if len(item.leading) + len(item.behind) > 1]
    if not contests:
        return [], []
    of_all = f"of {counted(len(contests), 'metric')}"
    grouped = _grouped(contests, lambda item: item.best)
    wins = sorted(((name, won) for name, won in grouped.items() if name is not None), key=lambda pair: -len(pair[1]))
    unwon = grouped.get(None, [])
    found = []
    for name, won in wins:
        others = [titles[other] for other in methods if other != name]
        rival = others[0] if len(others) == 1 else "every other method"
        found.append(Sentence("win", f"{titles[name]} is better than {rival} {_on(won, contests, titles)}."))
    level = [item for item in unwon if not item.behind]
    whom = _listed([titles[name] for name in methods]) if len(methods) <= 2 else f"The {len(methods)} methods"
    if level:
        found.append(Sentence("open", f"{whom} cannot be told apart {_on(level, contests, titles)}."))
    led = [item for item in unwon if item.behind]
    if led:
        # In a circle (a beats b, b beats c, c beats a) nobody leads.
        groups = [
            f"{_listed([titles[item.metric] for item in items])} (led by {_listed([titles[name] for name in leading])})"
            if leading
            else _listed([titles[item.metric] for item in items])
            for leading, items in _grouped(led, lambda item: item.leading).items()
        ]
        found.append(Sentence("open", f"No single winner {_share(led, contests)}: {'; '.join(groups)}."))
    if not wins:
        return [f"{whom} cannot be told apart." if len(level) == len(contests) else f"No method wins {of_all}."], found
    counts = [f"{titles[name]} wins {len(won)}" for name, won in wins]
    counts[0] += f" {of_all}"
    rest_won = sum(len(won) for _, won in wins[_WINNERS:])
    ends = [f"others win {rest_won}"] if rest_won else []
    ends += [f"{len(unwon)} stay{'s' if len(unwon) == 1 else ''} open"] if unwon else []
    return [", ".join([*counts[:_WINNERS], *ends]) + "."], found


def _of_baselines(
    decided: Sequence[Standing], methods: Sequence[str], titles: Mapping[str, str]
) -> tuple[list[str], list[Sentence]]:
    """Methods beside baselines: the short form and all findings."""
    contests = [item for item in decided if item.baselines and (item.leading or item.behind)]
    if not contests:
        return [], []
    of_all = f"of {counted(len(contests), 'metric')}"
    above = {name: sum(name in item.above for item in contests) for name in methods}
    order = sorted(methods, key=lambda name: -above[name])
    lost = [item for item in contests if item.beaten]
    found = []
    for (baselines, beaten), items in _grouped(
        [(item.metric, *pair) for item in lost for pair in _losses(item)], lambda found: found[1:]
    ).items():
        who = _listed([titles[name] for name in baselines])
        are = "(a baseline) is" if len(baselines) == 1 else "(baselines) are"
        whom = "every method" if len(beaten) == len(methods) > 1 else _listed([titles[name] for name in beaten])
        where = _listed([titles[metric] for metric, *_ in items])
        found.append(Sentence("baseline", f"{who} {are} better than {whom} on {where}."))
    if not lost:
        found.append(Sentence("win", "No baseline is better than a method."))
    each = [f"{titles[name]} on {above[name]}" for name in order if above[name]]
    if each:
        each[0] += f" {of_all}"
        each += ["the others on none"] if len(each) < len(methods) else []
        found.append(Sentence("win", f"Better than every baseline: {_listed(each)}."))
    else:
        found.append(Sentence("open", "No method is better than every baseline on any metric."))
    short = []
    if len(methods) == 1:
        short.append(f"{titles[methods[0]]} is better than every baseline on {above[methods[0]]} {of_all}.")
    short.append(
        f"A baseline is better than a method on {len(lost)} {of_all}."
        if lost
        else "No baseline is better than a method."
    )
    return short, found


def _losses(standing: Standing) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Baselines, and the methods that each of them is better than; baselines that beat the same methods together."""
    beaten = {
        baseline: tuple(name for name, others in standing.beaten.items() if baseline in others)
        for baseline in standing.baselines
    }
    return [
        (tuple(baselines), methods)
        for methods, baselines in _grouped(beaten, lambda baseline: beaten[baseline]).items()
        if methods
    ]


def _notes(
    results: Results, standings: Sequence[Standing], failures: Sequence[Failure], titles: Mapping[str, str]
) -> Iterable[str]:
    """What else one has to know."""
    count = len(results.images)
    if FEWEST <= count < _FEW:
        yield f"{count} images are few: small differences between methods do not show."
    few = [f"{titles[item.metric]} ({counted(item.n, 'image')})" for item in standings if item.n < FEWEST <= count]
    if few:
        yield f"Too few images to compare methods by {_listed(few)}."
    disagreements = sum(item.disagreements for item in standings)
    if disagreements:
        count_as = "it counts" if disagreements == 1 else "they count"
        yield f"Interval and adjusted p disagree in {counted(disagreements, 'comparison')}: {count_as} as open."
    methods = [entry for entry in results.variants if entry.baseline is None]
    for name, found in _grouped(
        [item for item in failures if item.variant is not None], lambda item: item.variant
    ).items():
        images = counted(len({item.image for item in found}), "image")
        yield f"{titles.get(str(name), name)} failed on {images}, which the means of all methods leave out."
    flat = [
        f"{item.title} ({results.flat[item.name].sum()} of {count})"
        for item in methods
        if results.flat[item.name].any()
    ]
    if flat:
        yield f"Maps that are the same everywhere and explain nothing: {_listed(flat)}."
    times = {item.title: time for item in methods if (time := median_of_known(results.seconds[item.name]))}
    if times:
        fast, slow = (pick(times, key=times.__getitem__) for pick in (min, max))
        if times[slow] >= _SLOWER * times[fast]:
            yield (
                f"{slow} takes {times[slow] / times[fast]:.1f} times as long as {fast}: "
                f"{brief_time(times[slow])} against {brief_time(times[fast])} per image."
            )


def _on(items: Sequence[Standing], contests: Sequence[Standing], titles: Mapping[str, str]) -> str:
    """On which metrics, of how many."""
    if len(items) == len(contests) > 1:
        return _share(items, contests)
    named = _listed([titles[item.metric] for item in items])
    return f"{_share(items, contests)}: {named}" if len(contests) > 1 else f"on {named}"


def _share(items: Sequence[Standing], contests: Sequence[Standing]) -> str:
    """On how many metrics of all."""
    if len(items) == len(contests):
        return f"on all {len(contests)} metrics" if len(contests) > 1 else "on the metric"
    return f"on {len(items)} of {counted(len(contests), 'metric')}"


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many, the first and how many more there are."""
    if len(names) > _NAMES + 1:
        return f"{', '.join(names[:_NAMES])} and {len(names) - _NAMES} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """Items by key, in the order in which the keys come."""
    found: dict[_Key, list[_Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
