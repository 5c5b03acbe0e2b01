"""What the benchmarks of approximate maps share: the configurations, and how far a map is from the exact one."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.subjects import DEFAULT_SAMPLES, Photograph, photographs
from numpy.typing import NDArray

EXACT: Final = "exact"
COMPLETED: Final = "budget, weights completed"
PLAIN: Final = "budget, energy order alone"
TOLERANCE: Final = "tolerance"
SAMPLED: Final = "samples until the mean is known"
HEAD: Final = "head only"
FAMILIES: Final = (EXACT, COMPLETED, PLAIN, TOLERANCE, SAMPLED, HEAD)
SAMPLING_ERRORS: Final = (0.1, 0.2)

CALIBRATION_PHOTOGRAPHS: Final = 32


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A way to explain.

    Attributes:
        family: of FAMILIES.
        precision: of the masked passes.
        options: of `Explainer.explain`.
    """

    family: str
    precision: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Unique, and readable in a table."""
        if self.family == HEAD:
            return str(self.options["method"])
        amounts = {
            key: f"{self.options[key]:g}" for key in ("budget", "tolerance", "sampling_error") if key in self.options
        }
        named = ", ".join(f"{key.replace('_', ' ')} {amount}" for key, amount in amounts.items())
        plain = "energy order alone" if self.family == PLAIN else ""
        precision = "" if self.precision == "fp32" else self.precision
        return ", ".join(filter(None, (named or self.family, plain, precision)))


def configurations(
    method: str,
    *,
    families: Sequence[str],
    budgets: Sequence[float],
    tolerances: Sequence[float],
    precisions: Sequence[str],
) -> list[Configuration]:
    """Everything that is compared, exact float32 first; other precisions run exact and with completed budgets.

    Methods that sample are also stopped at a standard error, alone and within each budget.
    """
    found = [Configuration(EXACT, "fp32", {"method": method})]
    for precision in precisions:
        if EXACT in families and precision != "fp32":
            found.append(Configuration(EXACT, precision, {"method": method}))
        if COMPLETED in families:
            found += [Configuration(COMPLETED, precision, {"method": method, "budget": budget}) for budget in budgets]
    if PLAIN in families:
        found += [
            Configuration(PLAIN, "fp32", {"method": method, "budget": budget, "completion": "none"})
            for budget in budgets
        ]
    if TOLERANCE in families:
        found += [
            Configuration(TOLERANCE, "fp32", {"method": method, "tolerance": tolerance}) for tolerance in tolerances
        ]
    if SAMPLED in families and method in DEFAULT_SAMPLES:
        found += [
            Configuration(SAMPLED, "fp32", {"method": method, "sampling_error": error, **more})
            for error in SAMPLING_ERRORS
            for more in ({}, *({"budget": budget} for budget in budgets))
        ]
    if HEAD in families and method not in DEFAULT_SAMPLES:
        from ortcam.methods import HEAD_METHODS

        found += [Configuration(HEAD, "fp32", {"method": item.name}) for item in HEAD_METHODS]
    return found


def pearson(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Correlation of two maps; 0 where one of them is flat and the other is not, 1 where both are."""
    flat = [np.ptp(item) == 0 for item in (first, second)]
    if any(flat):
        return float(all(flat))
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def calibration_folder(folder: Path, kept_out: Sequence[Photograph], *, count: int = CALIBRATION_PHOTOGRAPHS) -> Path:
    """A folder of links to photographs to calibrate integers on, none of those that will be explained."""
    names = {item.path.name for item in kept_out}
    others = [item for item in photographs() if item.path.name not in names]
    step = max(1, len(others) // count)
    target = folder / "calibration"
    target.mkdir()
    for item in others[::step][:count]:
        (target / item.path.name).symlink_to(item.path.resolve())
    return target
