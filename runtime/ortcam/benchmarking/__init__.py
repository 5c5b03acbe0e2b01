"""How long explanations take with this model on this device: by method, precision and batch size."""

from ortcam.benchmarking.bare import BareModel
from ortcam.benchmarking.run import DEFAULT_RUNS, DEFAULT_SECONDS, benchmark
from ortcam.benchmarking.timings import PEAK_MEMORY, Case, Row, Timings

__all__ = ["DEFAULT_RUNS", "DEFAULT_SECONDS", "PEAK_MEMORY", "BareModel", "Case", "Row", "Timings", "benchmark"]
