"""A process that decodes images from strangers: `python -m ortcam.serve.decoding.worker LIMITS`.

It reads encoded images from its standard input and writes pixels and model inputs to its standard output, as `frames`
has it, until its input ends. Native decoders may crash it, take too long or want too much memory: then this process
ends, and the server starts another one.
"""

import json
import math
import os
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ortcam.errors import ImageError, ImageWarning
from ortcam.images.decoding import decode
from ortcam.images.encoded import Encoded
from ortcam.images.formats.accepted import read_header
from ortcam.images.formats.header import DamagedError
from ortcam.images.limits import check_cost, check_encoded
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.samples import read_samples
from ortcam.serve.decoding.frames import BrokenFrameError, Stream, read_bytes, read_head, write_frame

__all__ = ["Bounds", "main"]

# 1 x 1 pixel: what a first image loads is in memory before memory is limited.
_FIRST: Final = b"P6 1 1 255\n\x80\x80\x80"
_LARGEST_FILE: Final = 1 << 20  # bytes: what decoders print goes to a file in memory; nothing else is written
_MOST_WARNINGS: Final = 8
_LIMIT: Final = re.compile(r"that go with max_pixels=[0-9]+")


@dataclass(frozen=True)
class Bounds:
    """What decoding one image may take.

    Attributes:
        pixels: of the image, as `ortcam.images.read_image` counts them.
        memory: bytes, on top of what the process has when it has started.
        seconds: of a processor.
    """

    pixels: int
    memory: int
    seconds: float


def main(arguments: list[str]) -> int:
    """Decode what comes until the input ends; an exit code.

    Args:
        arguments: `Bounds` as JSON.
    """
    bounds = Bounds(**json.loads(arguments[0]))
    # Whatever prints to descriptor 1 would break a frame.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    questions = os.fdopen(0, "rb", buffering=0, closefd=False)
    _one_thread()
    decode(Encoded("the first image", _FIRST), 1)
    _limit(bounds)
    write_frame(answers, {"ready": True})
    while True:
        try:
            head = read_head(questions)
        except BrokenFrameError:  # the server is gone, or needs this process no more
            return 0
        _answer(head, questions, answers, bounds)


def _one_thread() -> None:
    import cv2  # noqa: PLC0415 - only the process itself needs it, not who imports `Bounds`

    cv2.setNumThreads(1)


def _limit(bounds: Bounds) -> None:
    """Bound the memory of this process, what it writes to files, and what it leaves when it crashes.

    macOS and Windows do not bound the memory of a process. There the limit of pixels remains.
    """
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_FSIZE, _LARGEST_FILE)
        try:
            base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        except OSError:
            return
        _lower(resource.RLIMIT_AS, base + bounds.memory)


def _bound_time(seconds: float) -> None:
    """End this process after so much more work, should the server that watches the clock be gone."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        usage = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 1)


def _lower(what: int, most: int) -> None:
    """Set the soft limit of a resource, as far as the hard one lets it."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(head: dict[str, Any], questions: Stream, answers: Stream, bounds: Bounds) -> None:
    """Decode one image and write what came of it."""
    content = read_bytes(questions, head["sizes"][0])
    preprocessing = Preprocessing(**head["preprocessing"])
    name = head["name"] or f"image of {len(content)} bytes"
    _bound_time(bounds.seconds)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ImageWarning)
        try:
            check_encoded(len(content), name, bounds.pixels)
            samples = read_samples(Encoded(name, content), preprocessing, max_pixels=bounds.pixels)
            pixels = preprocessing.render(samples)
            model_input = preprocessing(samples)
        except ImageError as error:
            refusal = _too_large(content, name, bounds) or _in_words(str(error))
            write_frame(answers, {"refused": refusal})
            return
        except MemoryError:
            message = f"{name} takes more than {bounds.memory / 1e6:,.0f} MB to decode: give a smaller image"
            write_frame(answers, {"refused": {"message": message, "status": 422}})
            return
    said = {
        "pixels": pixels.shape,
        "input": model_input.shape,
        "samples": samples.dtype.name,
        "warnings": [str(warning.message) for warning in caught[:_MOST_WARNINGS]],
    }
    parts = [pixels.data, model_input.data, *([samples.data] if preprocessing.needs_samples else [])]
    write_frame(answers, said, parts)


def _in_words(message: str) -> dict[str, Any]:
    """The refusal of any other image, or of an array. Clients cannot change the limits that a sentence may name."""
    if "--max-pixels" not in message:
        return {"message": message, "status": 422}
    text = message.partition(": max_pixels=")[0]
    text = _LIMIT.sub("that this server allows", text)
    return {"message": f"{text}: give a smaller image", "status": 413}


def _too_large(content: bytes, name: str, bounds: Bounds) -> dict[str, Any] | None:
    """The refusal of an image that is too large, in words for who cannot change the limits; None for others."""
    try:
        header = read_header(content, name)
    except (ImageError, DamagedError, MemoryError):
        return None
    pixels = max(header.width * header.height, header.decoded_pixels)
    size = f"{name} has {header.width} x {header.height} pixels"
    if pixels > bounds.pixels:
        more = f" and decodes to {pixels}" if pixels > header.width * header.height else ""
        accepted = f"this server accepts at most {bounds.pixels} pixels: give a smaller image"
        return {"message": f"{size}{more}; {accepted}", "status": 413}
    try:
        check_encoded(len(content), name, bounds.pixels)
        check_cost(header, len(content), name, bounds.pixels)
    except ImageError:
        message = f"{size} and takes more memory to decode than this server allows: give a smaller image, or a JPEG"
        return {"message": message, "status": 413}
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
