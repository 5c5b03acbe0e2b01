"""One process for one target: fuzzes it with atheris, or tries it once on an input that was a finding.

python -m tests.fuzz.worker images FOLDER SECONDS
python -m tests.fuzz.worker images INPUT
"""

import hashlib
import os
import resource
import sys
from pathlib import Path
from random import Random
from typing import Final

__all__ = ["CORPUS", "CRASHES", "fuzz", "try_once"]

CORPUS: Final = "corpus"
CRASHES: Final = "crashes"
# Of addresses, of which ONNX Runtime's and numpy's threads take many; the targets hold what is in use to a budget.
_ADDRESSES: Final = 8 << 30
_RESIDENT_MB: Final = 2048
_SECONDS_PER_INPUT: Final = 60  # by the clock, on a busy machine; the targets measure the processor's


def _limit(seconds: int) -> None:
    os.environ["ORTCAM_CACHE"] = "off"
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def try_once(name: str, path: Path) -> None:
    """Try a target on the content of a file; whatever it raises is a finding."""
    _limit(10 * _SECONDS_PER_INPUT)
    from tests.fuzz.targets import target

    target(name).try_on(path.read_bytes())


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Fuzz a target for some seconds; ends the process, with another code than 0 where there is a finding.

    Args:
        name: of the target.
        folder: keeps the corpus and the findings of each target.
        seconds: by the clock.
    """
    _limit(2 * seconds + 10 * _SECONDS_PER_INPUT)
    import atheris

    with atheris.instrument_imports(include=["ortcam"]):
        from tests.fuzz.targets import target

        tried = target(name)
    corpus, crashes = folder / CORPUS / name, folder / CRASHES / name
    for place in (corpus, crashes):
        place.mkdir(parents=True, exist_ok=True)
    for seed in tried.seeds():
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)

    def change(data: bytes, longest: int, number: int) -> bytes:
        return tried.change(bytes(data), Random(number), lambda part, most: bytes(atheris.Mutate(part, most)), longest)

    options = {
        "artifact_prefix": f"{crashes}/",
        "max_total_time": seconds,
        "timeout": _SECONDS_PER_INPUT,
        "rss_limit_mb": _RESIDENT_MB,
        "max_len": tried.longest,
        "len_control": 0,
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], str(corpus), *(f"-{option}={value}" for option, value in options.items())]
    atheris.Setup(arguments, lambda data: tried.try_on(bytes(data)), custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        try_once(sys.argv[1], Path(sys.argv[2]))
    else:
        fuzz(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
