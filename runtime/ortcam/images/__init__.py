"""Images in and out: files and arrays to upright RGB, RGB to the model's input, maps over photographs, RGB to files.

```python
from ortcam.images import read_image

pixels = read_image("cat.jpg")  # uint8 [H, W, 3], RGB
```
"""

from ortcam.images.encoding import encode_jpeg, encode_png, write_png
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.photograph import Image, Photograph
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import ImageSource, read_image
from ortcam.images.rendering import Rendering, heatmap, overlay
from ortcam.images.resampling.crop import CropGeometry

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "CropGeometry",
    "Image",
    "ImageSource",
    "Photograph",
    "Preprocessing",
    "Rendering",
    "encode_jpeg",
    "encode_png",
    "heatmap",
    "overlay",
    "read_image",
    "write_png",
]
