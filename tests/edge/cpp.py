"""`make edge-cpp`: runtime/cpp/explain.cc, built with Debian 13's ONNX Runtime, and its maps beside the runtime's."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import ortcam
from ortcam_export import fuse
from tests.edge.debian import ARCHITECTURES, command, missing_tools, unpack

__all__ = ["CLOSE", "build", "compare", "explain", "map_difference", "missing", "packages", "runs_here"]

CLOSE: Final = 1e-4  # what a map may differ from the runtime's by
REPOSITORY: Final = Path(__file__).parents[2]
PACKAGES: Final = ("libonnxruntime-dev", "libstb-dev", "libstdc++-14-dev", "libturbojpeg0-dev")
FOLDER: Final = REPOSITORY / ".edge"
SHAPES: Final = REPOSITORY / "models" / "shapes.ortcam"
IMAGE: Final = REPOSITORY / "models" / "shapes" / "samples" / "mug-umbrella.png"
OWN: Final = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())


def missing(architecture: str) -> str | None:
    """Why the program cannot be built for an architecture here; None where it can."""
    for tool in ("cmake", "clang++", "ld.lld", "pkg-config"):
        if shutil.which(tool) is None:
            return f"no {tool}: apt-get install cmake clang lld pkg-config"
    return missing_tools(architecture)


def packages(architecture: str) -> Path:
    """Unpack what the program is built with, once. Returns the root."""
    return unpack(architecture, PACKAGES, FOLDER / f"cpp-{architecture}")


def build(architecture: str, root: Path, folder: Path, prefix: str = "usr") -> Path:
    """Build the program in a folder with CMake, by Clang for any architecture. Returns its path.

    Args:
        architecture: of `ARCHITECTURES`.
        root: with what it is built with.
        folder: for the build.
        prefix: the folder in the root where an ONNX Runtime other than Debian's is installed.

    Raises:
        RuntimeError: it does not build; the message has what the tools said.
    """
    triplet, processor = ARCHITECTURES[architecture]
    libraries = root / "usr/lib" / triplet
    configured = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": processor,
        "CMAKE_CXX_COMPILER": "clang++",
        "CMAKE_CXX_COMPILER_TARGET": triplet,
        "CMAKE_SYSROOT": root,
        "CMAKE_EXE_LINKER_FLAGS": f"-fuse-ld=lld -Wl,-rpath-link,{libraries}",
    }
    found = {
        "PKG_CONFIG_LIBDIR": f"{root / prefix}/lib/pkgconfig:{libraries}/pkgconfig:{root}/usr/share/pkgconfig",
        "PKG_CONFIG_SYSROOT_DIR": str(root),
    }
    settings = [f"-D{name}={value}" for name, value in configured.items()]
    for step in (
        ["cmake", "-S", str(REPOSITORY / "runtime" / "cpp"), "-B", str(folder), *settings],
        ["cmake", "--build", str(folder)],
    ):
        _run(step, found)
    return folder / "explain"


def explain(
    architecture: str, root: Path, program: Path, arguments: Sequence[object]
) -> subprocess.CompletedProcess[str]:
    """Run the program with the root's libraries: of this machine's architecture as it is, of another by qemu-user."""
    runner = runs_here(root, program) if architecture == OWN else command(architecture, root, str(program))
    return subprocess.run([*runner, *map(str, arguments)], capture_output=True, text=True, check=False)


def runs_here(root: Path, *program: str | Path, prefix: str = "usr") -> list[str]:
    """The command that runs a program here with the root's libraries, those of a prefix in it first."""
    libraries = root / "usr/lib" / ARCHITECTURES[str(OWN)][0]
    loader = next(libraries.glob("ld-linux*.so.*"))
    return [str(loader), "--library-path", f"{root / prefix}/lib:{libraries}", *map(str, program)]


def map_difference(maps: Path, expected: NDArray[np.float32]) -> float:
    """The largest difference of maps in a file from expected ones float32 [K,H,W]."""
    return float(np.abs(np.fromfile(maps, "<f4").reshape(expected.shape) - expected).max())


def _run(arguments: Sequence[str], variables: dict[str, str]) -> None:
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C", **variables}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {(done.stdout + done.stderr).strip()[-2000:]}")


def compare(name: str, run: Callable[..., subprocess.CompletedProcess[str]]) -> bool:
    """Print how far the maps of an example's program are from the runtime's; whether they are close.

    Args:
        name: of the example, for the lines.
        run: the program, as a function of its arguments.
    """
    close = True
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for method, suffix in (("grad-cam", ".onnx"), ("grad-cam", ".ort"), ("scorecam++", ".onnx")):
            budget = {"budget": 32} if method == "scorecam++" else {}
            ort = suffix == ".ort"
            file = folder / f"explainer{suffix}"
            fuse(SHAPES, file, method=method, uint8_input=True, ort=ort, force=True, verify=False, **budget)
            done = run(file, IMAGE, folder / "map.png", folder / "maps.f32")
            if done.returncode != 0:
                raise RuntimeError(done.stderr)
            limits = {"completion": "none", **budget} if budget else {}
            expected = ortcam.load(SHAPES).explain(IMAGE, method=method, **limits)
            difference = map_difference(folder / "maps.f32", expected.maps)
            close &= difference <= CLOSE
            print(f"{name}, {method}, {suffix}: {done.stdout.strip()}, map {difference:.1e} from Python's")
    return close


def _compare(architecture: str) -> bool:
    root = packages(architecture)
    with tempfile.TemporaryDirectory() as name:
        program = build(architecture, root, Path(name))
        return compare(architecture, lambda *arguments: explain(architecture, root, program, arguments))


def main() -> int:
    """Build the program for each architecture and compare its maps."""
    parser = argparse.ArgumentParser(prog="python -m tests.edge.cpp", description=__doc__)
    parser.add_argument("architectures", nargs="*", default=["amd64", "arm64"], metavar="ARCHITECTURE")
    close = True
    for architecture in parser.parse_args().architectures:
        if reason := missing(architecture):
            print(reason, file=sys.stderr)
            return 2
        close &= _compare(architecture)
    return 0 if close else 1


if __name__ == "__main__":
    sys.exit(main())
