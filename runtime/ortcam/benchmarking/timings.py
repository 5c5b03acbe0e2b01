"""What a benchmark measures and finds: cases, rows, and all of it with the machine."""

import dataclasses
from typing import Any, Final

from ortcam.engine.batching import BatchSize
from ortcam.request import ExplainRequest

__all__ = ["PEAK_MEMORY", "Case", "Row", "Timings"]

PEAK_MEMORY: Final = (
    "the highest resident memory of this process so far: Python, libraries, sessions and all methods together; memory "
    "of devices other than the CPU is not included"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """What a row measures.

    Attributes:
        method: METHOD[:KEY=VALUE...], or "auto: METHOD" where it was chosen for the bundle.
        precision: of the masked passes, as the bundle calls it.
        batch_size: masked images per run, or "auto".
        request: what is asked of the image.
    """

    method: str
    precision: str
    batch_size: BatchSize
    request: ExplainRequest


@dataclasses.dataclass(frozen=True)
class Row:
    """The times of one case.

    Attributes:
        method: as of its case.
        precision: that ran, as the bundle calls it.
        batch_size: that ran.
        providers: that ran.
        passes: masked forward passes that were measured; 0 for methods that mask nothing.
        all_passes: passes of a whole explanation; more than `passes` if there was no time for all of them.
        head_passes: passes of the head alone, for methods that mask nothing.
        seconds: of each run, with the passes that were measured.
        bare_seconds: seconds per image of features and head alone, at this batch size; None if nothing is masked, or
            if the masked passes have another precision.
        median: seconds of a whole explanation; scaled up if not all passes were measured.
        p95: the same for the 95th percentile (interpolated between the runs).
        overhead: `median` divided by the time of all its bare passes, minus 1; None without these.
        gradient_passes: backward passes of the head, for gradient methods.
    """

    method: str
    precision: str
    batch_size: int
    providers: tuple[str, ...]
    passes: int
    all_passes: int
    head_passes: int
    seconds: tuple[float, ...]
    bare_seconds: float | None
    median: float
    p95: float
    overhead: float | None
    gradient_passes: int = 0

    @property
    def is_scaled(self) -> bool:
        """Whether the times are scaled up, since there was no time for all passes."""
        return self.passes < self.all_passes


@dataclasses.dataclass(frozen=True)
class Timings:
    """What was measured, and where.

    Attributes:
        bundle: folder and SHA-256 of the manifest.
        model: its name.
        image: the image explained.
        machine: processor, logical cores, system.
        versions: of ortcam, ONNX Runtime, NumPy and Python.
        threads: asked for; None: chosen automatically.
        runs: explanations timed per case.
        seconds_allowed: for all cases together.
        rows: one per case.
        notes: cases that could not be measured, and why.
        peak_memory_bytes: see PEAK_MEMORY; None if the system does not tell.
    """

    bundle: dict[str, str]
    model: str
    image: str
    machine: dict[str, Any]
    versions: dict[str, str]
    threads: int | None
    runs: int
    seconds_allowed: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    peak_memory_bytes: int | None
