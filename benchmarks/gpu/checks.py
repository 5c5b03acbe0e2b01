"""All checks, one after the other: the engine, the methods, the commands."""

import gc
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.common.arguments import say
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.command_checks import COMMANDS
from benchmarks.gpu.engine_checks import ENGINE
from benchmarks.gpu.judging import Case, Check
from benchmarks.gpu.method_checks import METHOD_CASES

__all__ = ["checks"]

EVERY: Final = (*ENGINE, *METHOD_CASES, *COMMANDS)


def checks(bench: Bench, word: str = "", cases: Sequence[Case] = EVERY) -> Iterator[Check]:
    """All checks with a word in their name; one that fails or raises does not keep the others from running."""
    for name, needed, check in cases:
        if word not in name:
            continue
        if needed not in (None, bench.provider, *bench.precisions):
            yield Check(name, "skipped", f"needs {needed}")
            continue
        start = time.perf_counter()
        try:
            outcome, detail = "passed", check(bench)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs into the table
            outcome = "failed"
            say(traceback.format_exc())
            detail = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        yield Check(name, outcome, detail, time.perf_counter() - start)
        gc.collect()
