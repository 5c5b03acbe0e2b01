"""The shipped model on ARM: `ortcam explain` and fused files, run by qemu-user, beside the maps of this machine.

An environment is a folder of Debian 13's packages for an architecture, or of PyPI's wheels and Debian's Python. What
qemu-user shows is that the numbers are the same and how much memory a process takes, not how fast it is.
"""

import datetime as dt
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.edge import debian, wheels

__all__ = ["ENVIRONMENTS", "PACKAGES", "TOLERANCE", "Environment", "Result", "check", "maps_here", "prepare"]

PACKAGES: Final = ("Python", "numpy", "ONNX Runtime", "OpenCV", "tqdm")
_DEBIAN: Final = ("python3", "python3-numpy", "python3-onnxruntime", "python3-opencv", "python3-tqdm")
_PYPI: Final = ("numpy", "onnxruntime", "opencv-python-headless", "tqdm")


@dataclass(frozen=True)
class Environment:
    """What runs ortcam on ARM.

    Attributes:
        architecture: of `debian.ARCHITECTURES`.
        packages: Debian's.
        wheels: PyPI's, for Debian's Python.
    """

    architecture: str
    packages: Sequence[str]
    wheels: Sequence[str] = ()


ENVIRONMENTS: Final = {
    "arm64": Environment("arm64", _DEBIAN),
    "armhf": Environment("armhf", _DEBIAN),
    # The wheels bring all but the C++ library.
    "arm64-pypi": Environment("arm64", ("python3", "libstdc++6"), _PYPI),
}
TOLERANCE: Final = 1e-4  # of maps in [0,1]: float32, summed in another order

_REPOSITORY: Final = Path(__file__).parents[2]
_IMAGE: Final = _REPOSITORY / "models/shapes/samples/mug-umbrella.png"
# What is run: the name in reports, and options of `ortcam explain` or `ortcam fuse`. Python takes a minute to start
# under qemu-user and scorecam++ five, so they are few.
_PROGRAMS: Final = {
    "fused file, layer-cam": ("-m", "layer-cam"),
    "ortcam explain, scorecam++, 24 channels": ("-m", "scorecam++", "--budget", "24"),
    "fused file, scorecam++, 24 channels": ("-m", "scorecam++", "--budget", "24", "--batch-size", "1"),
}
_FUSED: Final = {name: options for name, options in _PROGRAMS.items() if name.startswith("fused file")}
# What a user of a fused file would write; its image is read as an array, because no decoder comes with ONNX Runtime.
_RUN: Final = """
import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
numpy.save(sys.argv[3], session.run(["saliency"], {"image": numpy.load(sys.argv[2])})[0])
"""


@dataclass(frozen=True)
class Result:
    """A map of an environment beside this machine's.

    Attributes:
        environment: of `ENVIRONMENTS`.
        what: which program made the map, with which options.
        difference: the largest of a pixel.
        memory: peak resident megabytes of the process, emulator included.
        at: when it was measured, UTC.
    """

    environment: str
    what: str
    difference: float
    memory: float
    at: str

    @property
    def same(self) -> bool:
        """Whether the maps agree."""
        return self.difference <= TOLERANCE


def prepare(name: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Unpack an environment, unless it is there.

    Args:
        name: of `ENVIRONMENTS`.
        folder: in which each environment has a folder of its own.

    Returns:
        The command that runs its Python, and the versions of `PACKAGES`.

    Raises:
        RuntimeError: packages could not be fetched.
    """
    environment, own = ENVIRONMENTS[name], folder / name
    root = debian.unpack(environment.architecture, environment.packages, own)
    found, paths = debian.versions(own), [_REPOSITORY / "runtime"]
    if environment.wheels:
        version = ".".join(found["python3"].split(".")[:2])
        paths.append(wheels.unpack(environment.wheels, version, own))
        wheels.describe_processor(root)
        found |= wheels.versions(own)
    variables = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONPYCACHEPREFIX": str(folder / f"pycache-{name}"),
    }
    names = ("python3", *environment.wheels) if environment.wheels else environment.packages
    chosen = {package: found[of] for package, of in zip(PACKAGES, names, strict=True)}
    return debian.command(environment.architecture, root, "usr/bin/python3", variables), chosen


def maps_here(folder: Path, again: bool = False) -> dict[str, NDArray[np.float32]]:
    """Write fused files into a folder, and explain the shipped image on this machine.

    Args:
        folder: kept between calls.
        again: write fused files that are there again.

    Returns:
        Maps by what made them.

    Raises:
        RuntimeError: a program failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    decoded = np.asarray(cv2.imread(str(_IMAGE)))
    np.save(folder / "image.npy", cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))
    for name, options in _FUSED.items():
        file = _fused_file(folder, name)
        if again or not file.exists():
            arguments = ["-m", "ortcam", "fuse", "shapes", *options, "--uint8-input", "--quiet", "--force", "-o"]
            _run([sys.executable, *arguments, str(file)], _HERE)
    return {name: saliency for name, saliency, _ in _explained([sys.executable], folder)}


def check(
    environment: str,
    python: Sequence[str],
    folder: Path,
    here: Mapping[str, NDArray[Any]],
    without: Collection[str] = (),
) -> Iterator[Result]:
    """Explain the shipped image in an environment, and compare; each result as soon as it is there.

    Args:
        environment: of `ENVIRONMENTS`.
        python: the command that `prepare` returned.
        folder: which `maps_here` got.
        here: what it returned.
        without: what need not be made, as `Result.what` has it.

    Raises:
        RuntimeError: a program failed, or its map has another shape.
    """
    for name, saliency, memory in _explained(python, folder, without):
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M")
        yield Result(environment, name, _difference(saliency, here[name]), memory, now)


def _explained(
    python: Sequence[str], folder: Path, without: Collection[str] = ()
) -> Iterator[tuple[str, NDArray[np.float32], float]]:
    """What made a map, the map, and the peak memory of the process."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        for name, options in ((name, options) for name, options in _PROGRAMS.items() if name not in without):
            if name in _FUSED:
                file = Path(made, "map.npy")
                memory = _run(
                    [*python, "-c", _RUN, *map(str, (_fused_file(folder, name), folder / "image.npy", file))], {}
                )
            else:
                arguments = ["-m", "ortcam", "explain", "shapes", str(_IMAGE), *options, "--threads", "1", "--quiet"]
                memory = _run([*python, *arguments, "--force", "-o", f"{made}/explained"], _HERE)
                (file,) = Path(made, "explained").rglob("class-*.npy")
            yield name, np.load(file), memory


def _fused_file(folder: Path, name: str) -> Path:
    return folder / f"fused-{[*_FUSED].index(name)}.onnx"


_HERE: Final = {"PYTHONPATH": os.pathsep.join(str(_REPOSITORY / name) for name in ("runtime", "export"))}


def _difference(got: NDArray[Any], expected: NDArray[Any]) -> float:
    if got.shape != expected.shape:
        raise RuntimeError(f"a map of shape {got.shape}; expected is {expected.shape}")
    return float(np.abs(got - expected).max())


def _run(arguments: Sequence[str], variables: Mapping[str, str]) -> float:
    """Run a program; returns its peak resident megabytes.

    Raises:
        RuntimeError: it failed, with the last lines that it wrote.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(arguments, stdout=said, stderr=said, env=_environment(variables))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {said.read()[-2000:]}")
    return usage.ru_maxrss / 1024


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's, with Python's files compiled once."""
    return {**{key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}, **variables}
