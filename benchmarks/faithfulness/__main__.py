"""Which method's maps are faithful? The tables behind faithfulness.md, by `ortcam evaluate` on real models.

Every study is a list of methods on some models; a run of one study on one model is an evaluation in a folder of its own
under --work, which goes on where it was when it is started again. Tables go to
benchmarks/results/faithfulness-tables.md and .json, anew after every evaluation; what other runs of the same models
and studies found stays in them. Run as `python -m benchmarks.faithfulness`; all of it takes a night, `--studies` and
`--models` choose, `--limit` shortens.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.common.arguments import add_threads, say, whole_number
from benchmarks.common.machine import describe_run
from benchmarks.common.results import RESULTS, ROOT, read_raw, write_results, write_text
from benchmarks.common.subjects import WITH_WEIGHTS, missing_data
from benchmarks.faithfulness.evaluating import evaluate
from benchmarks.faithfulness.report import figures, report
from benchmarks.faithfulness.studies import STUDIES

STEM: Final = RESULTS / "faithfulness-tables"


def main(arguments: Sequence[str]) -> int:
    """Evaluate and write; 2 where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--studies", nargs="+", choices=STUDIES, default=list(STUDIES), metavar="S", help=f"of {', '.join(STUDIES)}"
    )
    parser.add_argument("--models", nargs="+", choices=WITH_WEIGHTS, default=WITH_WEIGHTS, metavar="NAME")
    parser.add_argument("--limit", type=whole_number, metavar="N", help="images (default: what the study says)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "faithfulness-runs", metavar="DIR", help="default: %(default)s"
    )
    add_threads(parser)
    options = parser.parse_args(arguments)
    if missing := missing_data(options.models, real=True):
        say(missing)
        return 2
    run = describe_run("benchmarks.faithfulness", arguments)
    results: dict[str, dict[str, Any]] = read_raw(STEM).get("studies", {})
    text = ""
    for name, model in itertools.product(options.studies, options.models):
        if model not in STUDIES[name].models:
            continue
        results.setdefault(name, {})[model] = evaluate(STUDIES[name], model, options) | {"run": run}
        results = {study: results[study] for study in STUDIES if study in results}
        write_results(STEM, run=run, raw={"studies": results}, figures=figures(results))
        text = report(results, run, options.threads)
        write_text(STEM.with_suffix(".md"), text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
