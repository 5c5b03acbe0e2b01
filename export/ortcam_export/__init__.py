"""Export an image classifier as an ortcam bundle: the part that runs where PyTorch is.

```python
import ortcam_export

ortcam_export.export("resnet18", "resnet18.ortcam")
```
"""

from ortcam_export.errors import ExportError
from ortcam_export.exporting import Inspection, export, inspect_model
from ortcam_export.layers import Layer

__all__ = ["ExportError", "Inspection", "Layer", "export", "inspect_model"]
