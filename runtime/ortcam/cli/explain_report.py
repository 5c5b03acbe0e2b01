"""What `ortcam explain` shows: the bar, what was found in each image, errors, hints, and totals."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from ortcam.bundle import Manifest
from ortcam.cli.hints import SlowHint
from ortcam.cli.printing import print_image, print_row
from ortcam.cli.progress import Bar
from ortcam.engine.batching import Progress
from ortcam.errors import OrtcamError
from ortcam.request import ExplainRequest
from ortcam.results.explanation import Explanation
from ortcam.support.terminal import complain, say
from ortcam.support.words import counted, duration

__all__ = ["ExplainReport"]

_OVERHEAD: Final = 4  # forward passes that reading, drawing and saving take about as long as


class ExplainReport:
    """What a command has done so far, and how it is told.

    Attributes:
        results: what `--json` prints of each explanation.
        errors: images, None where an error is of the whole command, and what was wrong.
        images: how many were explained by one method at least.
    """

    def __init__(self, *, quiet: bool, as_json: bool, ours: TextIO) -> None:
        """Nothing is done.

        Args:
            quiet: whether errors alone are told.
            as_json: whether results are printed at the end, as JSON, and not by us.
            ours: where results are printed.
        """
        self.results: list[dict[str, Any]] = []
        self.errors: list[dict[str, str | None]] = []
        self.images = 0
        self._quiet, self._as_json, self._ours = quiet, as_json, ours
        self._started = time.perf_counter()
        self._begun = self._count = 0
        self._costs: dict[str, float] = {}
        self._done: float = 0
        self._name = ""
        self._chosen: list[str] = []
        self._providers: set[str] = set()
        self._bar: Bar | None = None
        self._hint: SlowHint | None = None

    @contextlib.contextmanager
    def watching(self, manifest: Manifest, images: int, requests: Sequence[ExplainRequest]) -> Iterator[None]:
        """Show how far the command is.

        Args:
            manifest: of the bundle.
            images: how many there are.
            requests: of every image, one per method.
        """
        self._count = images
        self._costs = {request.settings.method.name: _passes(manifest, request) for request in requests}
        self._hint = None if self._quiet else SlowHint(manifest, images * len(requests))
        self._chosen = [request.chosen for request in requests if request.chosen]
        total = images * sum(self._costs.values())
        with Bar("explaining", total=total, quiet=self._quiet) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def begin(self, name: str) -> None:
        """The next image begins; the one before is done with."""
        self._done = self._begun * sum(self._costs.values())
        self._begun += 1
        self._name = name
        if self._bar is not None:
            self._bar.update(self._done, note=self._note())

    def _note(self) -> str:
        count = f"{self._begun}/{self._count} " if self._count > 1 else ""
        return f"{count}{Path(self._name).name}"

    def progress(self, request: ExplainRequest) -> Progress:
        """What an explanation of the image calls after each run."""
        name, plan, limits = request.settings.method.name, request.settings.plan, request.limits
        cost = self._costs[name]
        start = self._done
        self._done += cost
        exact = all(limit is None for limit in (limits.budget, limits.deadline, limits.tolerance))
        note = f"{self._note()} {name}"
        if self._hint is not None:
            self._hint.begin()

        def update(done: int, total: int) -> None:
            if self._bar is None:
                return
            self._bar.update(start + cost * done / max(total, 1), note=note)
            if self._hint is not None and exact and plan is not None:
                line = self._hint.after(plan, done, total)
                if line is not None:
                    self._bar.say(line)

        return update

    def image(self, name: str, made: Sequence[tuple[Explanation, Path]], sheet: Path | None) -> None:
        """Tell what was found in an image.

        Args:
            name: of the image.
            made: the explanations, and the folder that each is saved in.
            sheet: the image of all of them.
        """
        self.images += 1
        explanations = [explanation for explanation, _ in made]
        self._providers.update(explanation.stats.providers[0] for explanation in explanations)
        if self._as_json:
            sheet_text = None if sheet is None else str(sheet)
            self.results += [{"folder": str(at), "sheet": sheet_text, **item.summary()} for item, at in made]
        elif not self._quiet:
            with self._aside():
                if self._count == 1:
                    print_image(name, explanations, sheet, self._ours)
                else:
                    for line in self._chosen:  # once, before the first row
                        say(f"auto: {line}", self._ours)
                    self._chosen = []
                    print_row(name, explanations, self._ours)

    def fail(self, name: str | None, error: OrtcamError) -> None:
        """Tell what is wrong with an image, or None: with the whole command."""
        self.errors.append({"image": name, "error": str(error)})
        with self._aside():
            complain(str(error))

    def stop(self, output: Path) -> None:
        """Tell what is kept, when the command is interrupted."""
        if not self._quiet and self._count:
            with self._aside():
                complain(f"{self.images} of {self._count} images are explained and kept in {output}")

    def end(self, index: Path | None) -> None:
        """Tell how many images were explained, how many were not, and what to open."""
        if self._quiet or self._as_json or not self.images:
            return
        failed = len({error["image"] for error in self.errors} - {None})
        seconds = duration(time.perf_counter() - self._started)
        where = ", ".join(sorted(name.removesuffix("ExecutionProvider") for name in self._providers))
        parts = [f"{counted(self.images, 'image')} explained in {seconds} on {where}"]
        parts += [f"{failed} with errors"] if failed else []
        say(", ".join(parts), self._ours)
        if index is not None:
            say(f"open {index}", self._ours)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        with contextlib.nullcontext() if self._bar is None else self._bar.aside():
            yield
            self._ours.flush()


def _passes(manifest: Manifest, request: ExplainRequest) -> float:
    """About how many forward passes an explanation takes, all that goes with it included."""
    plan, augmentation = request.settings.plan, request.settings.augmentation
    copies = 1 if augmentation is None else augmentation.copies
    masked = 0 if plan is None else request.limits.channels(manifest.cut.channels) * plan.samples
    return copies * (_OVERHEAD + masked)
