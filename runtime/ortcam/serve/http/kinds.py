"""What a request is about, for logs and metrics: a fixed word, and the name of a model."""

import re
from collections.abc import Collection
from typing import Final

__all__ = ["kind_of"]

_EXPLAINS: Final = "-explain"
_V1: Final = re.compile(r"/v1/models/([^/:]+)(?::(predict|explain))?", re.DOTALL)
_V2: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?(/infer)?(/.*)?", re.DOTALL)
_PLACES: Final = (
    ("/v2/health/", "health"),
    ("/metrics", "metrics"),
    ("/jobs/", "job"),
    ("/ui", "page"),
    ("/docs", "docs"),
    ("/openapi.json", "docs"),
    ("/v1/", "metadata"),
    ("/v2", "metadata"),
)


def kind_of(path: str, names: Collection[str]) -> tuple[str, str]:
    """The kind of a request, and the model that it names, "" if none.

    Args:
        path: of the URL.
        names: of the models that are served.

    Returns:
        "predict", "explain", "job", "health", "metadata", "metrics", "page", "docs" or "other"; and the name.

    Example:
        >>> kind_of("/v2/models/cat-explain/infer", ["cat"])
        ('explain', 'cat')
    """
    if found := _V1.fullmatch(path):
        return found[2] or "metadata", found[1]
    if found := _V2.fullmatch(path):
        name = found[1]
        explains = name not in names and name.endswith(_EXPLAINS)
        kind = ("explain" if explains else "predict") if found[2] else "metadata"
        return kind, name.removesuffix(_EXPLAINS) if explains else name
    return next((kind for place, kind in _PLACES if path.startswith(place)), "other"), ""
