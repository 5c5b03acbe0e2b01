"""`ortcam batch` beside bare loops: throughput, the cores shared in every way, Ray, memory, and what a driver can feed.

Parts (`--parts`), each in processes of its own:

- throughput: batches and bare loops over the same 500 files in turn, for every way to share the cores.
- ray: the same batches on Ray, which starts on this machine for each.
- memory: of the driver and of the scoring processes over thousands of images.
- driver: how many images per second a driver can hand out and write, with workers that do not compute.

Results go to benchmarks/results/batch.md and .json; parts that are not asked for are kept. Run as
`python -m benchmarks.batch`; needs $ORTCAM_TEST_DATA.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.batch.ceiling import measure_driver
from benchmarks.batch.memory import watch
from benchmarks.batch.report import figures, text_of
from benchmarks.batch.subjects import bundle_of
from benchmarks.batch.throughput import KINDS, SHIPPED, copied, measure_ray, measure_throughput
from benchmarks.common.arguments import add_output, say, whole_number
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import read_raw, write_results, write_text
from benchmarks.common.subjects import missing_data

_WATCHED: Final = {"method": "grad-cam"}


def main(arguments: Sequence[str]) -> int:
    """Measure and write, anew after every part; 2 where the data are not there."""
    options = _options(arguments)
    if missing := missing_data():
        say(missing)
        return 2
    run = describe_run("benchmarks.batch", arguments)
    wanted = options.parts or list(_PARTS)
    raw: dict[str, Any] = {}
    if set(wanted) != set(_PARTS):
        earlier = read_raw(options.output)
        raw = {part: earlier[part] for part in _PARTS if part in earlier}
    text = ""
    for part in wanted:
        say(f"{part}:")
        with tempfile.TemporaryDirectory() as name:
            raw[part] = _PARTS[part](options, Path(name))
        raw = {part: raw[part] for part in _PARTS if part in raw}
        text = text_of(raw, run_in_words(run, f"{options.images} images, {options.rounds} rounds, CPU, float32"))
        write_results(options.output, run=run, raw=raw, figures=figures(raw))
        write_text(options.output.with_suffix(".md"), text)
    print(text)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, metavar="NAME", help=f"of {', '.join(_PARTS)} (all)")
    models = list(dict.fromkeys(kind.model for kind in KINDS))
    parser.add_argument("--models", nargs="+", choices=models, default=models, metavar="NAME", help="of the throughput")
    parser.add_argument("--images", type=whole_number, default=500, metavar="N", help="per batch (500)")
    parser.add_argument("--rounds", type=whole_number, default=3, metavar="N", help="of the throughput (3)")
    parser.add_argument("--watched", type=whole_number, default=5000, metavar="N", help="images to watch memory over")
    parser.add_argument("--pretended", type=whole_number, default=40_000, metavar="N", help="for the driver (40000)")
    parser.add_argument(
        "--pretenders", nargs="+", type=whole_number, default=[16, 32], metavar="N", help="for the driver (16 and 32)"
    )
    parser.add_argument("--bundles", type=Path, metavar="FOLDER", help="keep the exported bundles here, and use them")
    add_output(parser, "batch")
    return parser.parse_args(arguments)


def _throughput(options: argparse.Namespace, folder: Path) -> Any:
    images = copied(folder / "images", options.images)
    bundles = {model: bundle_of(model, options.bundles or folder) for model in options.models}
    return measure_throughput(bundles, images, folder, options.rounds)


def _ray(options: argparse.Namespace, folder: Path) -> Any:
    images = copied(folder / "images", options.images)
    return measure_ray(bundle_of(SHIPPED, folder), images, folder)


def _memory(options: argparse.Namespace, folder: Path) -> Any:
    images = copied(folder / "images", options.watched)
    return watch(bundle_of(SHIPPED, folder), images, folder, **_WATCHED)


def _driver(options: argparse.Namespace, folder: Path) -> Any:
    return measure_driver(folder, options.pretended, options.pretenders)


_PARTS: Final[dict[str, Callable[[argparse.Namespace, Path], Any]]] = {
    "throughput": _throughput,
    "ray": _ray,
    "memory": _memory,
    "driver": _driver,
}


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say("stopped; the parts that were measured are written")
        sys.exit(130)
