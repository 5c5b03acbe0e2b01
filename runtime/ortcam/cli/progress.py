"""Signs of life of a command that takes long: one bar with the time left on a terminal, else a line now and then."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from ortcam.support.terminal import complain, printable, shortened
from ortcam.support.words import duration

__all__ = ["DELAY", "FIRST_LINE", "Bar", "LateBar", "stages"]

FIRST_LINE: Final = 10.0  # seconds before a command that nobody watches prints that it is at work
_SHARE: Final = 1 / 20  # of the time that it has run, between two such lines: rarer the longer it takes
_RAREST: Final = 300.0  # seconds between two such lines at most
DELAY: Final = 1.0  # seconds before a bar appears; what is quicker needs none


def _pause(seconds: float) -> float:
    """Seconds between two signs of life of what has run for so long."""
    return min(max(FIRST_LINE, seconds * _SHARE), _RAREST)


class Bar:
    """How far a command is, on standard error.

    On a terminal it is one bar with the time left. Elsewhere, say in a log file, it is a line after ten seconds and
    then now and then, at least every five minutes, however long a single step takes. Quiet, it is nothing.

    ```python
    with Bar("explaining", total=40, unit="images", quiet=False) as bar:
        for done in range(40):
            bar.update(done + 1)
    ```
    """

    def __init__(self, label: str, *, total: float | None, unit: str = "", quiet: bool, done: float = 0) -> None:
        """Begin to count.

        Args:
            label: what is done, say "explaining".
            total: of what is counted; fractions are accepted. None: not known, so no share and no time left.
            unit: what is counted, in the plural, say "images"; without it only the share is shown.
            quiet: whether nothing is shown.
            done: what an earlier run had done; it says nothing of the time left.
        """
        self.label, self.unit, self.total = label, unit, total
        self._initial = self._done = done
        self._quiet = quiet
        self._note = ""
        self._started = self._said = time.monotonic()
        self._bar: Any = None
        self._watched = not quiet and _is_terminal(sys.stderr)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None
        if self._watched:
            self._bar = _tqdm(printable(label), total, done, unit)
        elif not quiet:
            self._watcher = threading.Thread(target=self._watch, name="ortcam-signs-of-life", daemon=True)
            self._watcher.start()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds_left(self) -> float | None:
        """Time left at the pace so far; None before anything was done, and where the total is not known."""
        made = self._done - self._initial
        return (
            None
            if made <= 0 or self.total is None
            else (time.monotonic() - self._started) * (self.total - self._done) / made
        )

    def expect(self, total: float | None) -> None:
        """Say how much there is, where that was not known, or was thought to be another number."""
        self.total = total
        if self._bar is not None and self._bar.total != total:
            self._bar.total = total
            self._bar.bar_format = _bar_format(total, self.unit)
            self._bar.refresh()

    def update(self, done: float, *, note: str | None = None) -> None:
        """Say how much is done.

        Args:
            done: in all, not since the last call.
            note: what is at work, say "cat.jpg, scorecam++".
        """
        self._done = done
        self._note = self._note if note is None else note
        if self._bar is not None:
            if note is not None:
                self._bar.set_postfix_str(shortened(printable(note), 30), refresh=False)
            self._bar.update(done - self._bar.n)
        elif not self._quiet:
            self._say_if_due()

    def say(self, line: str) -> None:
        """Print a line of ours on standard error, above the bar."""
        with self.aside():
            complain(line)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar off the screen, while something else is printed."""
        if self._bar is None:
            yield
            return
        self._bar.clear()
        try:
            yield
        finally:
            self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        if self._watcher is not None:
            self._ended.set()
            self._watcher.join()
            self._watcher = None

    def _watch(self) -> None:
        """Say that a step is still at work, while it reports nothing itself."""
        while not self._ended.wait(_pause(time.monotonic() - self._started)):
            self._say_if_due()

    def _say_if_due(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._said < _pause(now - self._started):
                return
            self._said = now
        left = self.seconds_left
        if self.total is None:
            words = [f"{self.label}: {self._done:.0f} {self.unit}".rstrip()]
        else:
            words = [f"{self.label}: {self._done / self.total if self.total else 1:.0%}"]
            words += [f"{self._done:.0f} of {self.total:.0f} {self.unit}"] if self.unit else []
        words += [self._note] if self._note else []
        words += [f"{duration(now - self._started)} so far"]
        words += [] if left is None else [f"about {duration(left)} left"]
        complain(", ".join(words))


class LateBar:
    """A `Bar` that begins when the work first says how much there is; until then nothing is shown.

    ```python
    with LateBar("measuring", unit="cases", quiet=False) as bar:
        measure(progress=bar.update)  # calls progress(done, total)
    ```
    """

    def __init__(self, label: str, *, unit: str = "", quiet: bool) -> None:
        """Wait for the first `update`.

        Args:
            label: as of `Bar`.
            unit: as of `Bar`.
            quiet: as of `Bar`.
        """
        self._label, self._unit, self._quiet = label, unit, quiet
        self._bar: Bar | None = None

    def __enter__(self) -> "LateBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: float, total: float, *, note: str | None = None) -> None:
        """Say how much is done.

        Args:
            done: in all. What the first call says was done before: it says nothing of the time left.
            total: of what is counted; the first call decides.
            note: what is at work.
        """
        if self._bar is None:
            self._bar = Bar(self._label, total=total, unit=self._unit, quiet=self._quiet, done=done)
        self._bar.update(done, note=note)

    def say(self, line: str) -> None:
        """Print a line of ours on standard error, above the bar if there is one."""
        complain(line) if self._bar is None else self._bar.say(line)


@contextlib.contextmanager
def stages(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Say on standard error which stage of a long job begins, and every ten seconds or so that it is still at work.

    Yields:
        A function that takes the stage that begins, in words.
    """
    if quiet:
        yield lambda _: None
        return
    started = time.perf_counter()
    ended = threading.Event()
    lock = threading.Lock()
    stage, begun = "", started

    def line(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full or closed standard error is no reason to stop
            if sys.stderr is not None:
                print(f"{time.perf_counter() - started:6.1f} s  {printable(text)}", file=sys.stderr, flush=True)

    def report(text: str) -> None:
        nonlocal stage, begun
        with lock:
            stage, begun = text, time.perf_counter()
            line(text)

    def watch() -> None:
        while not ended.wait(_pause(time.perf_counter() - begun)):
            with lock:
                took = time.perf_counter() - begun
                if stage and took >= FIRST_LINE - 0.5:
                    line(f"still {stage}, for {duration(took)} now")

    watcher = threading.Thread(target=watch, name="ortcam-signs-of-life", daemon=True)
    watcher.start()
    try:
        yield report
    finally:
        ended.set()
        watcher.join()


def _is_terminal(stream: Any) -> bool:
    """Whether somebody watches who sees a line change; a terminal that is called dumb cannot."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
    return False


def _tqdm(label: str, total: float | None, done: float, unit: str) -> Any:
    """A bar of tqdm; None where tqdm is missing."""
    try:
        from tqdm import tqdm  # noqa: PLC0415 - the library's users do not need it
    except ImportError:
        return None
    return tqdm(
        desc=label,
        total=total,
        initial=done,
        delay=DELAY,
        leave=False,
        dynamic_ncols=True,
        bar_format=_bar_format(total, unit),
    )


def _bar_format(total: float | None, unit: str) -> str:
    if total is None:
        return f"{{desc}}: {{n:.0f}} {unit}, {{elapsed}} so far{{postfix}}"
    return "{desc}: {percentage:3.0f}%|{bar}| {remaining} left{postfix}"
