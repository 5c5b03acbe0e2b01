"""The driver of a batch with millions of ids: memory and time to go on where it was.

INPUT is a Parquet manifest with so many paths. OUTPUT has parts for all of them but the last, which were not computed
but written with one and the same map. Then the batch is resumed, for real: it reads all ids of OUTPUT and all of INPUT,
finds the one image that is left, explains it and ends. Reading INPUT and reading the ids are measured alone as well,
each stage in a process of its own. Results go to benchmarks/results/batch-scale.md and .json. Run as
`python -m benchmarks.batch.scale`; 100 million ids need 1 GB of disk, 3 GB of memory and half an hour.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.batch.loops import environment
from benchmarks.batch.scale_report import STAGES, figures, text_of
from benchmarks.batch.stages import METHOD
from benchmarks.common.arguments import add_output, say
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import ROOT, read_raw, write_results, write_text

from ortcam import batch
from ortcam.batch.output.parts import Output
from ortcam.bundle.shipped import bundle_path, demo_image

_ROWS: Final = 10_000  # of a part, as a batch writes them
_GROUP: Final = 100_000  # rows of a row group of the manifest


def main(arguments: Sequence[str]) -> int:
    """Measure and write; 1 where a resumed batch did not find the one image that was left."""
    options = _options(arguments)
    run = describe_run("benchmarks.batch.scale", arguments)
    found: dict[str, Any] = read_raw(options.output).get("sizes", {}) if options.keep else {}
    for millions in options.millions:
        with tempfile.TemporaryDirectory(dir=options.scratch) as name:
            for entry in _measured(round(millions * 1e6), Path(name), options.stages):  # anew after every stage
                found[str(millions)] = found.get(str(millions), {}) | entry
                found = {size: found[size] for size in sorted(found, key=float)}
                raw = {"sizes": found}
                write_results(options.output, run=run, raw=raw, figures=figures(raw))
                words = f"one row per image, parts of {_ROWS:,} rows, local disk, `shapes`, {METHOD}"
                text = text_of(raw, run_in_words(run, words))
                write_text(options.output.with_suffix(".md"), text)
    print(text)
    lost = [size for size, stages in found.items() if "resume" in stages and stages["resume"]["count"] != 1]
    for size in lost:
        say(f"{size} million: {found[size]['resume']['count']} images were left instead of 1")
    return 1 if lost else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--millions", nargs="+", type=float, default=[1.0, 10.0], metavar="N", help="of ids (default: 1 and 10)"
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        default=["ids", "resume", "input"],
        metavar="NAME",
        help=f"of {', '.join(STAGES)} (all but ray)",
    )
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="for INPUT and OUTPUT (default: of the system)")
    parser.add_argument("--keep", action="store_true", help="keep other sizes and stages of the raw results")
    add_output(parser, "batch-scale")
    return parser.parse_args(arguments)


def names(first: int, count: int) -> list[str]:
    """Paths of images as archives have them, each once."""
    return [f"archive/{number // 1000:06d}/IMG_{number:09d}.jpg" for number in range(first, first + count)]


def _measured(count: int, folder: Path, stages: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What was measured so far, after every stage."""
    source, output = folder / "images.parquet", folder / "output"
    say(f"{count:,} ids: writing INPUT")
    with pq.ParquetWriter(source, pa.schema({"path": pa.string()})) as writer:
        for first in range(0, count - 1, _GROUP):
            paths = names(first, min(_GROUP, count - 1 - first))
            writer.write_table(pa.table({"path": paths}))
        writer.write_table(pa.table({"path": [str(demo_image())]}))
    say(f"{count:,} ids: writing OUTPUT")
    parts = _write_output(output, count - 1, folder)
    found: dict[str, Any] = {
        "parts": parts,
        "input_bytes": source.stat().st_size,
        "output_bytes": sum(path.stat().st_size for path in output.iterdir()),
    }
    for stage in stages:
        say(f"{count:,} ids: {stage}")
        found[stage] = _stage(stage, source, output, folder)
        yield found


def _write_output(output: Path, count: int, folder: Path) -> int:
    """Write parts with so many ids; the number of the parts."""
    first = folder / "first"
    batch.run(bundle_path(), demo_image(), first, method=METHOD)
    made = Output(first)
    record = json.loads((first / "_batch.json").read_text("utf-8"))
    row = made.read_part(made.parts()[0]).slice(0, 1)
    template = pa.concat_tables([row] * _ROWS).combine_chunks()
    shutil.rmtree(first)
    target = Output(output)
    target.begin(record, resume=False)
    with contextlib.closing(target):
        for block in _blocks(count):
            table = template.slice(0, len(block))
            for column in ("id", "path"):
                place = table.schema.get_field_index(column)
                table = table.set_column(place, table.schema.field(column), pa.array(block))
            target.write_part(table)
        return len(target.parts())


def _blocks(count: int) -> Iterator[list[str]]:
    for first in range(0, count, _ROWS):
        yield names(first, min(_ROWS, count - first))


def _stage(stage: str, source: Path, output: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.batch.stages", stage, str(source), str(output)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment(folder), check=False)
    if done.returncode:
        raise SystemExit(f"the stage {stage} ended with {done.returncode}; what it said is above")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
