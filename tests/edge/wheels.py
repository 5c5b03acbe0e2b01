"""A folder of PyPI's wheels for another processor, as pip would choose them there."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["unpack", "versions"]

_CONSTRAINTS: Final = Path(__file__).parents[2] / "constraints.txt"
_PLATFORM: Final = "aarch64-manylinux_2_28"


def unpack(packages: Sequence[str], python: str, folder: Path) -> Path:
    """Unpack wheels for 64-bit ARM and all they depend on into FOLDER/wheels, which is returned.

    Versions are those of constraints.txt. A folder that is there already is left as it is, without a look at the
    network.

    Args:
        packages: PyPI's names.
        python: the version that runs them, such as "3.13".
        folder: kept between calls.

    Raises:
        RuntimeError: uv failed, with what it said.
    """
    made = folder / "wheels"
    if made.exists():
        return made
    part = folder / "wheels.part"
    shutil.rmtree(part, ignore_errors=True)
    chosen = ["--python-platform", _PLATFORM, "--python-version", python, "--only-binary", ":all:"]
    limits = ["--constraint", str(_CONSTRAINTS), "--target", str(part)]
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", *chosen, *limits, *packages]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if ran.returncode:
        raise RuntimeError(f"uv could not unpack wheels for 64-bit ARM: {ran.stderr.strip()[-2000:]}")
    return part.rename(made)


def versions(folder: Path) -> dict[str, str]:
    """The packages that lie in a folder of `unpack`, and their versions."""
    found = importlib.metadata.distributions(path=[str(folder / "wheels")])
    return {distribution.metadata["Name"]: distribution.version for distribution in found}
