"""Entries with other metrics each, measured on the same photographs, in one journal to which more are added later.

`ortcam evaluate` measures the same metrics of every entry. Here a part says which metrics its entries get, so that what
takes a hundred passes per map is kept for the entries that a decision hangs on. A journal does not name its entries:
another part, or another entry of one, can be added, and is paired with what is there photograph by photograph.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.common.arguments import say
from benchmarks.common.subjects import DATA, SUBJECTS
from benchmarks.faithfulness.studies import COARSE_STEP, SEED

from ortcam.bundle import file_sha256
from ortcam.errors import OrtcamError
from ortcam.evaluation.dataset import Example, read_dataset
from ortcam.evaluation.entries import Entry, baselines, parse_entries
from ortcam.evaluation.journal import Failure, Journal
from ortcam.evaluation.measuring import Measuring
from ortcam.evaluation.protocols import resolve_metrics, resolve_protocol
from ortcam.explainer import Explainer

PROTOCOL: Final = resolve_protocol("soft-map")
BATCH_SIZE: Final = 8


@dataclasses.dataclass(frozen=True)
class Part:
    """Entries that get the same metrics.

    Attributes:
        name: in `--parts`; several parts may share one.
        methods: as `ortcam evaluate -m` takes them, in its own spelling, and names of baselines.
        metrics: of `ortcam evaluate`.
        models: of SUBJECTS.
    """

    name: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def entries(self) -> list[Entry]:
        """What is measured."""
        known = {entry.name: entry for entry in baselines(SEED)}
        return [known[name] if name in known else parse_entries([name])[0] for name in self.methods]


def photographs_of(explainer: Explainer, limit: int) -> list[Example]:
    """The photographs, the same for every model."""
    return read_dataset(DATA / "images.csv", explainer.class_index, limit=limit, seed=SEED)


def open_journal(work: Path, model: str) -> Journal:
    """The journal of a model. What its measurements depend on is in it, but for the entries."""
    settings = {
        "weights": file_sha256(SUBJECTS[model].checkpoint),
        "images": file_sha256(DATA / "images.csv"),
        "layer": SUBJECTS[model].layer,
        "protocol": PROTOCOL.name,
        "step": COARSE_STEP,
        "seed": SEED,
    }
    return Journal(work / f"gradients-{model}", settings, resume=True)


def measure(part: Part, explainer: Explainer, examples: Sequence[Example], journal: Journal) -> None:
    """Measure what is missing of a part, photograph by photograph."""
    metrics = resolve_metrics(part.metrics, PROTOCOL)
    measuring = Measuring({None: explainer}, PROTOCOL, metrics, step=COARSE_STEP, batch_size=BATCH_SIZE)
    entries = part.entries
    done = set(journal.measured())
    for number, example in enumerate(examples, start=1):
        missing = [entry for entry in entries if (example.name, entry.name) not in done]
        if not missing:
            continue
        clean = measuring.clean(example, explainer.read(example.path))
        for entry in missing:
            try:
                journal.add(measuring.measure(clean, entry))
            except OrtcamError as error:
                journal.add(Failure(example.name, entry.name, str(error)))
                say(f"{example.name}, {entry.name}: {error}")
        if number % 10 == 0:
            say(f"{journal.path.parent.name}, {part.name}: {number}/{len(examples)}")
