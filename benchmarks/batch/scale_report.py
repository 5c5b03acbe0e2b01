"""The page about drivers with millions of ids."""

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.common.figures import Figure, table

__all__ = ["STAGES", "figures", "text_of"]

# Stage -> what it does, as the table says it.
STAGES: Final = {
    "ids": "read the ids of OUTPUT",
    "resume": "resume: find and explain the one image that is left",
    "input": "read INPUT to its end",
    "ray": "begin a new OUTPUT on Ray, until the first row",
}

_REPORT: Final = """\
# A driver with millions of ids

What `ortcam batch --resume` needs before the first image that is left. INPUT is a Parquet manifest. OUTPUT has a row
for each of its images but one. So the driver reads every id of OUTPUT and every path of INPUT, finds the one image that
is left, explains it and ends. Nothing of this is estimated: the rows of OUTPUT carry one and the same map, and all else
is the real code on real files.

{sizes}

Each stage ran in a process of its own. Memory is the most that was resident in it, beside what Python and the imports
took before ({base:.0f} MB). Bytes per id: that peak by the number of ids. The processes that score are not in it:
theirs does not depend on the number of images.

{stages}

The stage on Ray includes its start and its end; all paths but one name no file, so nothing but Ray itself takes time.

The driver keeps a digest of 16 bytes per finished id. Before that it makes sure that no id of a manifest comes twice,
which takes 8 bytes per id. The images of INPUT stream. A run that begins a new OUTPUT has no finished ids, and needs
the stage "{input}" alone. On a machine with other work, processor seconds tell more than seconds.

{run}
"""


def text_of(raw: Mapping[str, Any], run: str) -> str:
    """The page.

    Args:
        raw: what was measured.
        run: the lines about machine and command.
    """
    sizes = raw["sizes"]
    return _REPORT.format(
        sizes=table(
            ["ids", "parts", "INPUT, MB", "OUTPUT, MB"],
            (
                [
                    _ids(size),
                    f"{item['parts']:,}",
                    f"{item['input_bytes'] / 1e6:,.0f}",
                    f"{item['output_bytes'] / 1e6:,.0f}",
                ]
                for size, item in sizes.items()
            ),
        ),
        base=max(item[stage]["base_bytes"] for item in sizes.values() for stage in STAGES if stage in item) / 1e6,
        stages=table(
            ["ids", "stage", "seconds", "processor seconds", "peak memory, MB", "bytes per id"],
            (
                [
                    _ids(size),
                    words,
                    f"{taken['seconds']:.1f}",
                    f"{taken['processor_seconds']:.1f}",
                    f"{_grown(taken) / 1e6:,.0f}",
                    f"{_grown(taken) / (1e6 * float(size)):.1f}",
                ]
                for size, item in sizes.items()
                for stage, words in STAGES.items()
                if (taken := item.get(stage))
            ),
        ),
        input=STAGES["input"],
        run=run,
    )


def figures(raw: Mapping[str, Any]) -> list[Figure]:
    """What the committed result keeps."""
    found = []
    for size, item in raw["sizes"].items():
        for stage in (stage for stage in STAGES if stage in item):
            title, taken = f"{_ids(size)} / {stage}", item[stage]
            found += [
                Figure(f"{title} / time", "s", (taken["seconds"],)),
                Figure(f"{title} / processor time", "s", (taken["processor_seconds"],)),
                Figure(f"{title} / peak memory", "B", (float(_grown(taken)),)),
            ]
    return found


def _grown(taken: Mapping[str, Any]) -> int:
    grown: int = taken["peak_bytes"] - taken["base_bytes"]
    return grown


def _ids(size: str) -> str:
    return f"{float(size):g} million"
