"""`make edge-minimal`: a small build of ONNX Runtime for two fused files of the shipped model, and what it does.

    python -m tests.edge.minimal

Fetches Debian 13's source of ONNX Runtime and what it needs (600 MB on disk) with this machine's apt, and CMake from
PyPI, and compiles: about an hour on two cores. A run that was stopped goes on where it was. Ends with 1 where a map
differs by more than 1e-4. Writes benchmarks/results/minimal.md.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import RESULTS, write_text

from tests.edge import cpp, debian
from tests.edge.minimal.building import FLAGS, FOLDER, build, missing
from tests.edge.minimal.comparing import (
    METHODS,
    REFUSED,
    RUNS,
    Program,
    Result,
    operators,
    programs,
    refusal,
    results,
)

__all__ = ["main", "report"]

_REPORT: Final = """\
# A small build of ONNX Runtime

ONNX Runtime {version}, built from Debian 13's source with the operators of two [fused files](../../docs/how-to/fuse.md)
alone, beside Debian's own package. Both run [the example in C++](../../docs/how-to/cpp.md), which explains
[the image](../../models/shapes/samples/mug-umbrella.png) with the shipped model. The difference is the largest of a
pixel from Python's map, of maps in [0,1]. Memory is the peak of the process, the largest of {runs} runs; seconds are
those of the processors, from start to end, their median. A megabyte is a million bytes.

| library | file | file, MB | difference | peak memory, MB | seconds |
| --- | --- | --- | --- | --- | --- |
{rows}

| library | stripped, MB | with the libraries that it loads, MB |
| --- | --- | --- |
{libraries}

C and C++ libraries are not counted. The small build has what it needs in itself.

`build.py` was given `{flags} --include_ops_by_config`, with the list of both files. It compiled with Clang {clang},
Debian's headers and static libraries in place of downloads, `onnxruntime_ENABLE_CPUINFO=OFF`, and without sources of
operators that are not in the list.

The small build refuses other files. Of one with an operator, or a type of one, that is not in the list it says:

```text
{refused}
```

And of `.onnx`:

```text
{onnx}
```

{run}
"""

_REFUSED: Final = ((REFUSED, ".ort"), (next(iter(METHODS)), ".onnx"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, compare, print, and write the results; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.edge.minimal", description="Make and try a small build.")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "minimal.md", help="report, default %(default)s")
    options = parser.parse_args(arguments)
    if reason := missing():
        print(f"make edge-minimal: {reason}", file=sys.stderr)
        return 2
    run = describe_run("tests.edge.minimal", [])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            print(f"building in {FOLDER}, about an hour on two cores where nothing is there yet", flush=True)
            root = build(operators(folder))
            made = programs(root, folder)
            found = results(made, folder)
            said = {suffix: refusal(made, folder, method, suffix) for method, suffix in _REFUSED}
        except RuntimeError as error:
            print(f"make edge-minimal: {error}", file=sys.stderr)
            return 1
        said = {suffix: text.replace(f"{folder}/", "") for suffix, text in said.items()}
    print("\n".join(map(_row, found)))
    write_text(options.output, report(made, found, said, debian.versions(FOLDER / "debian"), run))
    return 0 if all(result.difference <= cpp.CLOSE for result in found) else 1


def report(
    made: dict[str, Program],
    found: Sequence[Result],
    said: dict[str, str],
    versions: dict[str, str],
    run: dict[str, object],
) -> str:
    """The page of results.

    Args:
        made: programs, by the name of their library.
        found: what they made of the files.
        said: what the small build said of a file that it refused, by the suffix.
        versions: Debian's, of packages.
        run: what `describe_run` returned.
    """
    clang = subprocess.run(["clang++", "-dumpversion"], capture_output=True, text=True, check=True).stdout.strip()
    return _REPORT.format(
        version=versions["libonnxruntime1.21"].partition("+")[0],
        runs=RUNS,
        rows="\n".join(map(_row, found)),
        libraries="\n".join(
            f"| {name} | {_size(made[name], [])} | {_size(made[name], made[name].needs)} |" for name in made
        ),
        flags=" ".join(FLAGS),
        clang=clang,
        refused=said[".ort"],
        onnx=said[".onnx"],
        run=run_in_words(run, "two threads", raw=False),
    )


def _row(result: Result) -> str:
    size, memory, seconds = f"{result.size:.2f}", f"{result.memory:.0f}", f"{result.seconds:.2f}"
    return f"| {result.library} | {result.file} | {size} | {result.difference:.1e} | {memory} | {seconds} |"


def _size(program: Program, others: Sequence[Path]) -> str:
    return f"{sum(path.stat().st_size for path in (program.library, *others)) / 1e6:.1f}"


if __name__ == "__main__":
    sys.exit(main())
