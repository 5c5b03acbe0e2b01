"""Evaluation of explanations: metrics of faithfulness and localisation, statistics, and a report.

```python
from ortcam.evaluation import evaluate

report = evaluate("shapes", "photos/", methods=["scorecam++", "cam"])
print(report.in_words())
```
"""

from typing import TYPE_CHECKING, Any

from ortcam.errors import OrtcamError
from ortcam.support.extras import missing

if TYPE_CHECKING:
    from ortcam.evaluation.run import Evaluation, Report, evaluate

__all__ = ["Evaluation", "Report", "evaluate"]


def __getattr__(name: str) -> Any:
    """What needs the extra is imported when it is first used, so that the command line can name the extra."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from ortcam.evaluation import run  # noqa: PLC0415 - see above
    except ImportError as error:
        raise OrtcamError(missing(f"{__name__}.{name}", "evaluate", error)) from None
    return getattr(run, name)
