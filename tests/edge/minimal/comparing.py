"""runtime/cpp/explain.cc with Debian's ONNX Runtime and with a small build: maps, memory, time, size, refusals."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import ortcam
from ortcam_export import fuse, required_operators
from tests.edge import cpp
from tests.edge.minimal.building import PREFIX

__all__ = [
    "LIBRARIES",
    "METHODS",
    "REFUSED",
    "RUNS",
    "Program",
    "Result",
    "fused",
    "operators",
    "programs",
    "refusal",
    "results",
]

METHODS: Final[dict[str, dict[str, int]]] = {"grad-cam": {}, "scorecam++": {"budget": 32}}  # method: how it is fused
REFUSED: Final = "sscam"  # it has operators that these lack
LIBRARIES: Final = {"Debian's, whole": "usr", "small": str(PREFIX)}  # name: the prefix in the root
RUNS: Final = 5
# Python's own peak before the program runs in its place would count otherwise: this one has 9 MB.
_MEASURED: Final = """\
import json, os, sys
_, status, used = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(json.dumps([used.ru_maxrss * 1024 / 1e6, used.ru_utime + used.ru_stime]))
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Program(NamedTuple):
    """The example in C++, built with one of LIBRARIES.

    Attributes:
        command: which runs it, without arguments.
        library: its ONNX Runtime.
        needs: files of libraries that the library loads, beside those of C and C++.
    """

    command: list[str]
    library: Path
    needs: list[Path]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        command = [*self.command, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


class Result(NamedTuple):
    """What a program made of a file.

    Attributes:
        library: of LIBRARIES.
        file: method and suffix.
        size: of the file, in MB.
        difference: of its map from Python's, the largest of a pixel.
        memory: peak of the process, in MB.
        seconds: of the processors, median.
    """

    library: str
    file: str
    size: float
    difference: float
    memory: float
    seconds: float


def fused(folder: Path, method: str, suffix: str) -> Path:
    """The shipped model and a method as one file, written once."""
    file = folder / f"{method}{suffix}"
    if not file.exists():
        ort = suffix == ".ort"
        fuse(cpp.SHAPES, file, method=method, uint8_input=True, ort=ort, verify=False, **METHODS.get(method, {}))
    return file


def operators(folder: Path) -> str:
    """The list for one build that runs all of METHODS."""
    return required_operators(*(fused(folder, method, ".ort") for method in METHODS), types=True)


def programs(root: Path, folder: Path) -> dict[str, Program]:
    """The example with each of LIBRARIES, built in a folder."""
    made = {}
    for number, (name, prefix) in enumerate(LIBRARIES.items()):
        program = cpp.build("amd64", root, folder / f"explain-{number}", prefix)
        (library,) = {path.resolve() for path in (root / prefix / "lib").rglob("libonnxruntime.so*")}
        listed = subprocess.run(
            cpp.runs_here(root, "--list", library, prefix=prefix), capture_output=True, text=True, check=True
        ).stdout
        needed = [Path(line.split()[2]).resolve() for line in listed.splitlines() if " => /" in line]
        common = ("libc.", "libm.", "libgcc_s", "libstdc++", "ld-linux", "libpthread", "libdl.", "librt.")
        needs = [path for path in needed if not path.name.startswith(common)]
        made[name] = Program(cpp.runs_here(root, program, prefix=prefix), library, needs)
    return made


def results(made: dict[str, Program], folder: Path) -> list[Result]:
    """Run each program on each file that it takes, in turn.

    Raises:
        RuntimeError: a program failed.
    """
    found = []
    for method, options in METHODS.items():
        limits = {"completion": "none", **options} if options else {}
        expected = ortcam.load(cpp.SHAPES).explain(cpp.IMAGE, method=method, **limits).maps
        for name, suffix in ((library, suffix) for library in made for suffix in _suffixes(library)):
            file, maps = fused(folder, method, suffix), folder / "maps.f32"
            used = [_measured(made[name], [file, cpp.IMAGE, folder / "map.png", maps]) for _ in range(RUNS)]
            memory, seconds = max(memory for memory, _ in used), statistics.median(seconds for _, seconds in used)
            size, difference = file.stat().st_size / 1e6, cpp.map_difference(maps, expected)
            found.append(Result(name, f"{method}, {suffix}", size, difference, memory, seconds))
    return found


def refusal(made: dict[str, Program], folder: Path, method: str, suffix: str) -> str:
    """What the small build says of a file that it does not take.

    Raises:
        RuntimeError: it took the file.
    """
    done = made["small"].run(fused(folder, method, suffix), cpp.IMAGE, folder / "refused.png")
    if done.returncode != 2 or (folder / "refused.png").exists():
        raise RuntimeError(f"{method}{suffix}: is not refused: {done.returncode}, {done.stdout}{done.stderr}")
    return done.stderr.strip()


def _suffixes(library: str) -> tuple[str, ...]:
    """A small build takes ORT format alone."""
    return (".ort",) if library == "small" else (".onnx", ".ort")


def _measured(program: Program, arguments: Sequence[object]) -> tuple[float, float]:
    command = [sys.executable, "-I", "-S", "-c", _MEASURED, *program.command, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]}: {done.stderr.strip()}")
    memory, seconds = json.loads(done.stdout.splitlines()[-1])
    return memory, seconds
