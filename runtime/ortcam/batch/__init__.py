"""Explain millions of images: a bucket of images in, a table of maps out, on one machine or on Ray.

```python
import ortcam

ortcam.batch.run("resnet18.ortcam", "photos/", "maps/", budget=0.12)
for explanation in ortcam.batch.open("maps/"):
    print(explanation)
```

Needs the extra `batch`; `engine="ray"` needs the extra `ray`.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from ortcam.errors import OrtcamError
from ortcam.support.extras import missing

if TYPE_CHECKING:
    from ortcam.batch.job import RayOptions
    from ortcam.batch.output.results import Results
    from ortcam.batch.output.results import open as open  # noqa: A004 - as files are opened
    from ortcam.batch.running import BatchReport, run

__all__ = ["BatchReport", "RayOptions", "Results", "open", "run"]

_PLACES: Final = {
    "BatchReport": "ortcam.batch.running",
    "RayOptions": "ortcam.batch.job",
    "Results": "ortcam.batch.output.results",
    "open": "ortcam.batch.output.results",
    "run": "ortcam.batch.running",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first needed: pyarrow and fsspec take a while."""
    if name in _PLACES:
        try:
            return getattr(importlib.import_module(_PLACES[name]), name)
        except ImportError as error:
            raise OrtcamError(missing("`ortcam batch`", "batch", error)) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
