"""`Report`: what an evaluation found, for who called it."""

import dataclasses
from pathlib import Path

from ortcam.evaluation.journal import Failure
from ortcam.evaluation.report.terminal import in_words
from ortcam.evaluation.report.verdict import Verdict
from ortcam.evaluation.results import Results, Summary

__all__ = ["Report"]


@dataclasses.dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        results: every number.
        summary: means, intervals and differences.
        verdict: the findings in sentences.
        failures: images that were skipped, or methods on them.
        folder: where the files are.
    """

    results: Results
    summary: Summary
    verdict: Verdict
    failures: list[Failure]
    folder: Path

    def in_words(self, width: int = 80) -> str:
        """The verdict, then a table of means, for a terminal.

        Args:
            width: of the terminal, in columns.
        """
        return in_words(self.results, self.summary, self.verdict, str(self.folder / "report.html"), width)
