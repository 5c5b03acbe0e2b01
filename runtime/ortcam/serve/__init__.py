"""The server of `ortcam serve`: explanations over HTTP, on the protocols of KServe (extra `ortcam[serve]`).

`create_app` returns an ASGI application, which `ortcam serve` runs with uvicorn. Any other ASGI server runs it, too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ortcam.serve.app import create_app
    from ortcam.serve.settings import Settings

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: a process that decodes images needs neither of them, and no FastAPI."""
    if name == "create_app":
        from ortcam.serve.app import create_app  # noqa: PLC0415

        return create_app
    if name == "Settings":
        from ortcam.serve.settings import Settings  # noqa: PLC0415

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
