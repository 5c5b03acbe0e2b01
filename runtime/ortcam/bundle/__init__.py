"""The bundle: the folder that an export writes and the runtime reads, and the checks before it is trusted."""

from ortcam.bundle.contents import Content, file_sha256
from ortcam.bundle.folder import Bundle, Graph
from ortcam.bundle.gates import GATES
from ortcam.bundle.manifest import (
    LARGEST_MANIFEST,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SCORE_TERMS,
    Activation,
    Cut,
    FileRecord,
    FixedInput,
    Gradient,
    Graphs,
    Manifest,
    ModelRecord,
    OutputPart,
    Precision,
    Probe,
    Variant,
    precision_by_name,
)
from ortcam.bundle.measured import Fidelity, GradientParity, Likeness, Parity
from ortcam.bundle.reading import open_bundle, read_bundle

__all__ = [
    "GATES",
    "LARGEST_MANIFEST",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "SCORE_TERMS",
    "Activation",
    "Bundle",
    "Content",
    "Cut",
    "Fidelity",
    "FileRecord",
    "FixedInput",
    "Gradient",
    "GradientParity",
    "Graph",
    "Graphs",
    "Likeness",
    "Manifest",
    "ModelRecord",
    "OutputPart",
    "Parity",
    "Precision",
    "Probe",
    "Variant",
    "file_sha256",
    "open_bundle",
    "precision_by_name",
    "read_bundle",
]
