"""`ortcam explain`: its flags, and the loop over images and methods."""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from ortcam import gallery
from ortcam.cli.asked import limits_of, methods_of
from ortcam.cli.common import (
    EXIT_BAD_INPUT,
    Terminated,
    add_execution,
    add_force,
    add_image_reading,
    add_json,
    add_limits,
    add_method,
    add_option,
    add_output,
    add_quiet,
    add_rendering,
    add_score,
    add_targets,
    check_nothing_is_lost,
    providers_of,
    rendering,
)
from ortcam.cli.explain_report import ExplainReport
from ortcam.cli.images import add_images, check_images, image_names
from ortcam.cli.models import add_model, open_explainer
from ortcam.cli.parsers import add_command
from ortcam.errors import (
    BundleError,
    MemoryLimitError,
    OptionError,
    OrtcamError,
    OutOfMemoryError,
    OutputError,
    ProviderError,
    TargetError,
)
from ortcam.explainer import Explainer
from ortcam.images.inputs import display_name, from_argument
from ortcam.images.photograph import Photograph, read_ahead
from ortcam.request import ExplainRequest, Score, class_indices
from ortcam.results.explanation import Explanation
from ortcam.results.folders import ResultFolders, check_output, file_digest
from ortcam.results.saved import OccupiedError, image_sha256
from ortcam.results.sheet import save as save_sheet
from ortcam.support.files import FULL
from ortcam.support.terminal import json_text, others_aside

__all__ = ["add_explain"]

_WITH: Final = " with \0: "  # where a sentence names the method, which may be several


def add_explain(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "explain",
        _explain,
        help="show which parts of images speak for a class",
        description="Show which parts of images speak for a class: pictures, maps and a web page.",
        examples=(
            "ortcam explain shapes photo.jpg",
            "ortcam explain resnet18 photos/ -m auto,scorecam++ -t dog",
        ),
    )
    add_model(parser)
    add_images(parser)
    what = parser.add_argument_group("what to explain")
    add_method(what)
    add_option(what)
    add_targets(what)
    add_score(what)
    add_limits(parser)
    results = parser.add_argument_group("results")
    add_output(results, default="explanations", help="folder to write to")
    add_force(results, "replace earlier results with other settings")
    add_rendering(results)
    add_json(results)
    add_quiet(results)
    add_execution(parser)
    add_image_reading(parser)


@dataclasses.dataclass(frozen=True)
class _Image:
    """One image of the command.

    Attributes:
        name: in messages and results.
        source: what is read: a path, or the bytes of standard input.
        folder: that its results go to.
    """

    name: str
    source: str | bytes
    folder: Path


@dataclasses.dataclass(frozen=True)
class _Work:
    """One method of the command.

    Attributes:
        request: what is asked of every image.
        record: what the manifests of its results will say.
    """

    request: ExplainRequest
    record: dict[str, Any]


def _explain(options: argparse.Namespace) -> int:
    with others_aside() as ours:
        report, index = _explained(options, ours)
    if options.json:
        index_text = None if index is None else str(index)
        print(json_text({"explanations": report.results, "errors": report.errors, "index": index_text}))
    return EXIT_BAD_INPUT if report.errors else 0


def _explained(options: argparse.Namespace, ours: TextIO) -> tuple[ExplainReport, Path | None]:
    """Explain and save. What is wrong with the whole command is found before any image is read, and said once.

    Args:
        options: of the command.
        ours: where results are printed.

    Returns:
        What was done, and the page of all results.

    Raises:
        OrtcamError: what is wrong with the whole command.
    """
    methods = methods_of(options.method, options.option)
    if options.target is not None and options.top_k is not None:
        raise TargetError(f"--top-k {options.top_k} with -t {' -t '.join(options.target)}: give one or the other")
    output = check_output(options.output)
    gallery.check(output)
    wanted = providers_of(options)
    check_images(options)
    options.score = Score.of(options.score)  # what is wrong with it is said before a model is exported
    explainer = open_explainer(options, wanted)
    names = image_names(options, arrays=explainer.bundle.manifest.preprocessing.needs_samples)
    report = ExplainReport(quiet=options.quiet, as_json=options.json, ours=ours)
    work = _work(options, methods, explainer, report)
    folders = ResultFolders(output)
    images = _placed(options, names, folders, work)
    with report.watching(explainer.bundle.manifest, len(images), [item.request for item in work]):
        try:
            _Loop(options, explainer, folders, report, work).explain_each(images)
        except (KeyboardInterrupt, Terminated):
            report.stop(output)
            with contextlib.suppress(OrtcamError):
                _index(output, report)
            raise
    index = None
    try:
        index = _index(output, report)
    except OutputError as error:
        report.fail(None, error)
    report.end(index)
    return report, index


def _work(
    options: argparse.Namespace,
    methods: Sequence[tuple[str, dict[str, object]]],
    explainer: Explainer,
    report: ExplainReport,
) -> list[_Work]:
    """The requests of the methods that this bundle allows; what it does not allow is reported.

    Raises:
        OptionError: a value that is not accepted.
        TargetError: a class, or a number of classes, that the model does not have.
    """
    has_classes = explainer.bundle.manifest.has_classes  # of a model without, the request says what is accepted
    targets = class_indices(options.target, explainer.labels) if options.target and has_classes else options.target
    if options.score is not None and any("score" in settings for _, settings in methods):
        raise OptionError(f"--score {options.score.text} with --option score=...: give one or the other")
    asked = {} if options.score is None else {"score": options.score}
    arguments: list[dict[str, Any]] = [
        {"method": method, "target": targets, **limits_of(options, method), **asked, **settings}
        for method, settings in methods
    ]
    work: dict[str, _Work] = {}
    failures: dict[str, list[str]] = {}  # what several methods fail for is one sentence: of the methods' names
    for request, given in [(ExplainRequest.of(**given), given) for given in arguments]:
        try:
            item = _Work(request.for_bundle(explainer.bundle.manifest), explainer.check(**given))
        except OptionError as error:  # the other methods are worth having
            failures.setdefault(str(error).replace(f" with {given['method']}: ", _WITH), []).append(given["method"])
            continue
        known = work.get(item.record["method"])
        # What auto stands for may be named, too, and the two would share a folder. Where they differ, say by the budget
        # that auto gives, what is named counts.
        if known is None or (known.request.chosen and known.record != item.record):
            work[item.record["method"]] = item
    for sentence, names in failures.items():
        report.fail(None, OptionError(sentence.replace(_WITH, f" with {', '.join(names)}: ")))
    return list(work.values())


class _Loop:
    """Explains image by image, saves, and reports what was found."""

    def __init__(
        self,
        options: argparse.Namespace,
        explainer: Explainer,
        folders: ResultFolders,
        report: ExplainReport,
        work: Sequence[_Work],
    ) -> None:
        self._options = options
        self._explainer = explainer
        self._folders = folders
        self._report = report
        self._work = list(work)  # what fails for every image is taken out
        self._full = False  # the disk takes no more results

    def explain_each(self, images: Sequence[_Image]) -> None:
        """Explain all images, unless nothing is left that could be done for the next one."""
        wanted = images if self._work else ()
        with contextlib.closing(read_ahead(wanted, lambda image: self._explainer.read(image.source))) as ahead:
            for image, read in ahead:
                self._report.begin(image.name)
                try:
                    photograph = read()
                    if self._explain(image, photograph):
                        self._explainer.check_memory("saved the pictures of an image")
                except OrtcamError as error:
                    for_all = _fails_for_all(error)
                    self._report.fail(None if for_all else image.name, error)
                    if for_all:
                        return
                if self._full or not self._work:
                    return

    def _explain(self, image: _Image, photograph: Photograph) -> bool:
        """Explain an image by each method. Whether there are pictures of any, made below the limit of the memory."""
        made: list[tuple[Explanation, Path]] = []
        for item in tuple(self._work):
            try:
                progress = self._report.progress(item.request)
                explanation = self._explainer.explain_request(item.request, photograph, progress=progress)
                made.append((explanation, _save(explanation, image, self._folders, self._options)))
            except OrtcamError as error:
                for_all = _fails_for_all(error)
                self._report.fail(None if for_all else image.name, error)
                self._full = _is_full(error)
                if self._full:
                    break
                if isinstance(error, MemoryLimitError) and _has_passed_its_limit(self._explainer):
                    self._work.clear()  # a peak stays: the other methods would meet it, too
                    break
                if for_all:
                    self._work.remove(item)
        if made:
            self._report.image(image.name, made, self._sheet(image, made))
        return bool(made and self._work)

    def _sheet(self, image: _Image, made: Sequence[tuple[Explanation, Path]]) -> Path | None:
        """The sheet of an image; None where the disk is full, or it cannot be written."""
        if self._full:
            return None
        folder, explanations = made[-1][1].parent, [explanation for explanation, _ in made]
        try:
            return save_sheet(folder, explanations, **rendering(self._options).record())
        except OrtcamError as error:
            self._report.fail(image.name, error)
            self._full = _is_full(error)
            return None


def _index(output: Path, report: ExplainReport) -> Path | None:
    """Write the page of all results; None where there are none.

    Raises:
        OutputError: it cannot be written, or somebody else's page is there.
    """
    return gallery.write(output) if report.images else None


def _placed(
    options: argparse.Namespace, names: Sequence[str], folders: ResultFolders, work: Sequence[_Work]
) -> list[_Image]:
    """The images with the folder of each, once it is clear that saving there loses nothing, or is forced.

    Raises:
        ImageError: standard input cannot be read.
        OutputError: results of the same images with other settings are there.
    """
    digest = functools.cache(lambda source: file_digest(source) if isinstance(source, str) else _sha256(source))
    images = []
    for name in names:
        source = from_argument(name, max_pixels=options.max_pixels)
        shown = display_name(name)
        images.append(_Image(shown, source, folders.give(shown, functools.partial(digest, source))))
    if not options.force:
        check_nothing_is_lost(
            [
                (
                    image.folder / item.record["method"],
                    {
                        **item.record,
                        "image": {"sha256": digest(image.source), "white": options.white},
                        "rendering": rendering(options).record(),
                    },
                )
                for image in images
                if image.folder.exists()
                for item in work
            ]
        )
    return images


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _save(explanation: Explanation, image: _Image, folders: ResultFolders, options: argparse.Namespace) -> Path:
    """Save an explanation in the folder of its image, or in the next one if another command was faster.

    Where `--force` replaces something, it is of the same image or of nobody's.
    """
    drawn = rendering(options).record()
    folder = image.folder

    def digest() -> str | None:
        return image_sha256(explanation.provenance["image"])

    while True:
        try:
            return explanation.save(folder / explanation.method, **drawn)
        except OccupiedError:
            if options.force and folders.is_free(folder, digest):
                return explanation.save(folder / explanation.method, force=True, **drawn)
            folder = folders.give(image.name, digest)


def _is_full(error: OrtcamError) -> bool:
    """Whether the disk takes no more results: what has no room for one has none for the next."""
    return isinstance(error, OutputError) and getattr(error.__cause__, "errno", None) in FULL


def _has_passed_its_limit(explainer: Explainer) -> bool:
    """Whether the process has had more memory than it may."""
    try:
        explainer.check_memory("explained an image")
    except MemoryLimitError:
        return True
    return False


def _fails_for_all(error: OrtcamError) -> bool:
    """Whether the method would meet the same error with the next image."""
    of_the_bundle = isinstance(error, (BundleError, OptionError, ProviderError, TargetError))
    return of_the_bundle and not isinstance(error, OutOfMemoryError)
