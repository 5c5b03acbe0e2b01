"""A bundle to put hostile files into."""

import shutil
from pathlib import Path

import pytest

from ortcam.bundle.shipped import bundle_path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the shipped bundle to make hostile."""
    return Path(shutil.copytree(bundle_path(), tmp_path / "hostile.ortcam"))
