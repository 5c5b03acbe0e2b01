"""Export an image classifier as an ortcam bundle: the part that runs where PyTorch is.

```python
import ortcam_export

ortcam_export.export("resnet18", "resnet18.ortcam")
ortcam_export.fuse("resnet18.ortcam", "explainer.onnx", method="scorecam++")
```
"""

from ortcam_export.errors import ExportError
from ortcam_export.exporting import Inspection, export, inspect_model
from ortcam_export.fusing import Fused, fuse
from ortcam_export.layers import Layer

__all__ = ["ExportError", "Fused", "Inspection", "Layer", "export", "fuse", "inspect_model"]
