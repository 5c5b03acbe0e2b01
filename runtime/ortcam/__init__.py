"""Explain image classifiers with ONNX Runtime: Grad-CAM, Score-CAM and their relatives without PyTorch.

```python
import ortcam

explainer = ortcam.load("resnet18.ortcam")
explanation = explainer.explain("cat.jpg", top_k=3)
print(explanation.chosen)  # the method that was taken, and why
explanation.save("out/")
```
"""

import importlib
from typing import TYPE_CHECKING, Any

from ortcam._version import __version__
from ortcam.bundle import Bundle, read_bundle
from ortcam.errors import (
    BundleError,
    ClosedError,
    ImageError,
    ImageWarning,
    MemoryLimitError,
    NotFiniteError,
    OptionError,
    OrtcamError,
    OutOfMemoryError,
    OutputError,
    ProviderError,
    TargetError,
)
from ortcam.explainer import Explainer, load
from ortcam.images.photograph import Photograph
from ortcam.images.preprocessing import Preprocessing
from ortcam.methods import METHODS, Method
from ortcam.request import Score
from ortcam.results.explanation import Explanation, Stats
from ortcam.results.prediction import Prediction
from ortcam.results.sheet import sheet

if TYPE_CHECKING:
    from ortcam import batch
    from ortcam.results import gallery

__all__ = [
    "METHODS",
    "Bundle",
    "BundleError",
    "ClosedError",
    "Explainer",
    "Explanation",
    "ImageError",
    "ImageWarning",
    "MemoryLimitError",
    "Method",
    "NotFiniteError",
    "OptionError",
    "OrtcamError",
    "OutOfMemoryError",
    "OutputError",
    "Photograph",
    "Prediction",
    "Preprocessing",
    "ProviderError",
    "Score",
    "Stats",
    "TargetError",
    "__version__",
    "batch",
    "gallery",
    "load",
    "read_bundle",
    "sheet",
]


def __getattr__(name: str) -> Any:
    """Import `ortcam.gallery` and `ortcam.batch` when they are first asked for: an explanation does without them."""
    if name == "batch":
        return importlib.import_module("ortcam.batch")
    if name == "gallery":
        return importlib.import_module("ortcam.results.gallery")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
