"""Parity: how far the graphs of a bundle are from their model, measured at export and again where they are used."""

from ortcam.parity.gradient import gradient_failure, sample_gradient, verify_gradient
from ortcam.parity.graphs import (
    PARITY_TOLERANCE,
    Opener,
    graphs_in_words,
    measure_parity,
    measure_variant,
    no_score,
    parity_failure,
    relative_difference,
    run_scorer,
    verify,
    verify_variants,
)
from ortcam.parity.probe import probe_input, read_probe

__all__ = [
    "PARITY_TOLERANCE",
    "Opener",
    "gradient_failure",
    "graphs_in_words",
    "measure_parity",
    "measure_variant",
    "no_score",
    "parity_failure",
    "probe_input",
    "read_probe",
    "relative_difference",
    "run_scorer",
    "sample_gradient",
    "verify",
    "verify_gradient",
    "verify_variants",
]
