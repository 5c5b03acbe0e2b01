"""`make edge-arm`: the shipped model on 64-bit and 32-bit ARM, under qemu-user.

    python -m tests.edge [--folder .edge] [--again] [ENVIRONMENT...]

The first run fetches packages of Debian 13 (600 MB on disk per architecture) with this machine's apt, and wheels from
PyPI (200 MB); later ones need no network. A map takes minutes: what an earlier run measured is kept, so a run that was
stopped goes on where it was. Ends with 1 where a map differs by more than 1e-4. Writes benchmarks/results/arm.md.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import RESULTS, write_text

from tests.edge import debian
from tests.edge.arm import ENVIRONMENTS, PACKAGES, TOLERANCE, Result, check, maps_here, prepare

__all__ = ["main"]

_REPOSITORY: Final = Path(__file__).parents[2]
_REPORT: Final = """\
# ARM under qemu-user

The shipped classifier explains [the image](../../models/shapes/samples/mug-umbrella.png) on emulated ARM, with Debian
13's packages, and with PyPI's wheels (arm64-pypi). What was not measured has no row; rows are kept from
run to run, each with its time. The difference is the largest of
a pixel from the map of the machine below, of maps in [0,1]; {tolerance:g} is accepted. Memory is the peak of the
process on one thread and includes the emulator, so a device needs less. An emulator shows no speed, and takes
instructions that a processor may lack.

| environment | what | difference | peak memory, MB | measured, UTC |
| --- | --- | --- | --- | --- |
{rows}

| environment | {packages} |
| --- |{rules}
{versions}

{run}
"""


def main(arguments: list[str] | None = None) -> int:
    """Compare, print, and write the results; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.edge", description="Compare maps on ARM with this machine's."
    )
    parser.add_argument("environments", nargs="*", metavar="ENVIRONMENT", help=f"of {', '.join(ENVIRONMENTS)}; all")
    parser.add_argument("--folder", type=Path, default=_REPOSITORY / ".edge", help="for packages, default .edge")
    parser.add_argument("--again", action="store_true", help="measure again what an earlier run measured")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "arm.md", help="report, default %(default)s")
    options = parser.parse_args(arguments)
    environments = options.environments or list(ENVIRONMENTS)
    if unknown := [name for name in environments if name not in ENVIRONMENTS]:
        parser.error(f"no environment {', '.join(unknown)}; there are {', '.join(ENVIRONMENTS)}")
    for name in environments:
        if reason := debian.missing_tools(ENVIRONMENTS[name].architecture):
            print(f"make edge-arm: {reason}", file=sys.stderr)
            return 2
    folder = options.folder.resolve()
    run = describe_run("tests.edge", options.environments)
    same, here = True, maps_here(folder / "maps", again=options.again)
    for name in environments:
        python, versions = prepare(name, folder)
        results = [] if options.again else _kept(folder, name, versions)
        for result in results:
            print(f"{_row(result)} kept")
        try:
            for result in check(name, python, folder / "maps", here, [result.what for result in results]):
                print(_row(result), flush=True)
                results.append(result)
                measured = {"versions": versions, "results": [dataclasses.asdict(result) for result in results]}
                _record(folder, name).write_text(json.dumps(measured))
                _write(options.output, folder, run)
        except RuntimeError as error:
            print(f"make edge-arm: {name}: {error}", file=sys.stderr)
            same = False
        same = same and all(result.same for result in results)
    _write(options.output, folder, run)
    return 0 if same else 1


def _record(folder: Path, environment: str) -> Path:
    return folder / f"results-{environment}.json"


def _kept(folder: Path, environment: str, versions: Mapping[str, str]) -> list[Result]:
    """What an earlier run measured with the same versions."""
    record = _record(folder, environment)
    measured = json.loads(record.read_text()) if record.exists() else {}
    return [Result(**result) for result in measured["results"]] if measured.get("versions") == versions else []


def _write(output: Path, folder: Path, run: Mapping[str, Any]) -> None:
    """Write the report of all environments that were measured in a folder."""
    files = {name: _record(folder, name) for name in ENVIRONMENTS}
    measured = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    text = _REPORT.format(
        tolerance=TOLERANCE,
        rows="\n".join(_row(Result(**result)) for item in measured.values() for result in item["results"]),
        packages=" | ".join(PACKAGES),
        rules=" --- |" * len(PACKAGES),
        versions="\n".join(f"| {name} | {' | '.join(item['versions'].values())} |" for name, item in measured.items()),
        run=run_in_words(run, "one thread, qemu-user").rpartition("\n")[0],  # there are no raw numbers
    )
    write_text(output, text)


def _row(result: Result) -> str:
    difference = f"{result.difference:.1e}" + ("" if result.same else ": not the same")
    return f"| {result.environment} | {result.what} | {difference} | {result.memory:.0f} | {result.at} |"


if __name__ == "__main__":
    sys.exit(main())
