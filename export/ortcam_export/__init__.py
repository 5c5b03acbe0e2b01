"""Export an image classifier as an ortcam bundle: the part that runs where PyTorch is.

```python
import ortcam_export

ortcam_export.export("resnet18", "resnet18.ortcam")
ortcam_export.fuse("resnet18.ortcam", "explainer.onnx", method="scorecam++")
```
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Final

from ortcam.support.extras import install

# What `ortcam[onnx]` brings beside ONNX Runtime. PyTorch is looked for where a model needs it.
_NEEDED: Final = {"onnx": "onnx", "onnx_ir": "onnx-ir", "onnxscript": "onnxscript"}

if _missing := [module for module in _NEEDED if importlib.util.find_spec(module) is None]:
    raise ModuleNotFoundError(
        f"ortcam_export needs {', '.join(_NEEDED[module] for module in _missing)}: "
        f"{install('onnx')} brings what .onnx files need, {install('export')} what PyTorch models need, too",
        name=_missing[0],
    )

from ortcam_export.api import export, inspect_model  # noqa: E402 - behind the sentence above
from ortcam_export.errors import ExportError  # noqa: E402

if TYPE_CHECKING:
    from ortcam_export.fused.fuse import Fused, fuse
    from ortcam_export.graphs.layers import Layer
    from ortcam_export.inspection import Inspection
    from ortcam_export.ort_format import required_operators
    from ortcam_export.providers import ProviderSupport, inspect_provider
    from ortcam_export.sources.pytorch.identity import identity_of

__all__ = [
    "ExportError",
    "Fused",
    "Inspection",
    "Layer",
    "ProviderSupport",
    "export",
    "fuse",
    "identity_of",
    "inspect_model",
    "inspect_provider",
    "required_operators",
]

# Where the names are that are imported when they are asked for, as their modules take seconds to import.
_ON_DEMAND: Final = {
    "Fused": "fused.fuse",
    "Inspection": "inspection",
    "Layer": "graphs.layers",
    "ProviderSupport": "providers",
    "fuse": "fused.fuse",
    "identity_of": "sources.pytorch.identity",
    "inspect_provider": "providers",
    "required_operators": "ort_format",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
