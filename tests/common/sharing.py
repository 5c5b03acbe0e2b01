"""Exports that tests share: the worker that asks first makes the bundle, the others read it."""

from pathlib import Path
from typing import Any

from filelock import FileLock

from ortcam_export import export

__all__ = ["export_once"]


def export_once(model: Any, bundle: Path, **arguments: Any) -> Path:
    """Export unless the bundle is there already; an export that fails or is stopped leaves none."""
    with FileLock(bundle.with_name(f"{bundle.name}.lock")):
        if not bundle.exists():
            export(model, bundle, **arguments)
    return bundle
