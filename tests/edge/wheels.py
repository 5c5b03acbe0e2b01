"""A folder of PyPI's wheels for another processor, as pip would choose them there."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["describe_processor", "unpack", "versions"]

_CONSTRAINTS: Final = Path(__file__).parents[2] / "constraints.txt"
_PLATFORM: Final = "aarch64-manylinux_2_28"
_CORE: Final = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


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


def describe_processor(root: Path) -> None:
    """Write what the system says of a processor with one core, a Cortex-A72, into a root.

    qemu-user shows programs the host's, and ONNX Runtime 1.31 crashes on one that has nothing of ARM.
    """
    files = {"proc/cpuinfo": _CORE}
    files |= {f"sys/devices/system/cpu/{name}": "0\n" for name in ("online", "possible", "present")}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def versions(folder: Path) -> dict[str, str]:
    """The packages that lie in a folder of `unpack`, and their versions."""
    found = importlib.metadata.distributions(path=[str(folder / "wheels")])
    return {distribution.metadata["Name"]: distribution.version for distribution in found}
