"""`ortcam explain`: its flags, and the loop over images and methods."""

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, get_args

from ortcam.allocation import Completion
from ortcam.arguments import budget, pairs_of, providers
from ortcam.cli.common import (
    EXIT_BAD_INPUT,
    add_execution,
    add_force,
    add_image_reading,
    add_json,
    add_method,
    add_option,
    add_output,
    add_quiet,
    add_targets,
    check_nothing_is_lost,
    progress_bar,
)
from ortcam.cli.models import add_model, open_bundle
from ortcam.cli.parsers import Rare, add_command
from ortcam.cli.printing import print_explanation
from ortcam.errors import (
    BundleError,
    OptionError,
    OrtcamError,
    OutOfMemoryError,
    OutputError,
    ProviderError,
    TargetError,
)
from ortcam.explainer import Explainer, load, resolve_task
from ortcam.explanation import Explanation
from ortcam.files import FULL
from ortcam.methods import Plan, resolve_method
from ortcam.ranges import ALPHA, DEADLINE, SAMPLING_ERROR, TOLERANCE
from ortcam.rendering import COLORMAPS
from ortcam.result_folders import ResultFolders, check_output, file_digest
from ortcam.saved import OccupiedError, image_sha256
from ortcam.targets import class_indices
from ortcam.terminal import complain, json_text, others_aside

__all__ = ["add_explain"]


def add_explain(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "explain",
        _explain,
        help="show which parts of images speak for a class",
        description="Explain what a classifier sees in images: maps, overlays, and a page to leaf through.",
        examples=("ortcam explain shapes photo.jpg", "ortcam explain resnet18 photos/ -m scorecam++,cam -t dog"),
    )
    add_model(parser)
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="files, folders, patterns such as 'a/*.jpg', or - (stdin)"
    )
    what = parser.add_argument_group("what to explain")
    add_method(what)
    add_option(what)
    add_targets(what)
    _add_limits(parser.add_argument_group("fewer passes (else every channel is scored, and the map is exact)"))
    results = parser.add_argument_group("results")
    add_output(results, default="explanations", help="folder to write to")
    add_force(results, "replace results of the same image with other settings")
    results.add_argument("--colormap", choices=COLORMAPS, default="jet", help="colours of the map")
    results.add_argument(
        "--alpha", type=ALPHA, default=0.5, metavar="A", help=Rare("weight of the map in the overlay, from 0 to 1")
    )
    add_json(results)
    add_quiet(results)
    add_execution(parser)
    add_image_reading(parser)


def _add_limits(group: Any) -> None:
    group.add_argument("--budget", type=budget, metavar="B", help="channels to score: 12%%, 0.12, or a number of them")
    group.add_argument(
        "--deadline",
        type=DEADLINE,
        metavar="MS",
        help="milliseconds per explanation; the map then depends on the load",
    )
    group.add_argument(
        "--tolerance", type=TOLERANCE, metavar="E", help="stop when the estimated error is below E, such as 0.05"
    )
    group.add_argument(
        "--completion",
        choices=get_args(Completion),
        default="gaussian-process",
        help=Rare("how the weights of channels that were not scored are predicted"),
    )
    group.add_argument(
        "--sampling-error",
        type=SAMPLING_ERROR,
        metavar="E",
        help=Rare("sscam, iscam: stop sampling a channel once the standard error of its weight is below this share"),
    )


def _explain(options: argparse.Namespace) -> int:
    with others_aside() as ours:
        results, errors = _explained(options, ours)
    if options.json:
        print(json_text({"explanations": results, "errors": errors}))
    return EXIT_BAD_INPUT if errors else 0


def _explained(options: argparse.Namespace, ours: TextIO) -> tuple[list[dict[str, Any]], list[dict[str, str | None]]]:
    """Explain and save.

    Args:
        options: of the command.
        ours: where results are printed.

    Returns:
        What `--json` prints of each explanation, and the images with what was wrong with each.

    Raises:
        OrtcamError: what is wrong with the whole command.
    """
    # What is wrong with the whole command is found before any image is read, and said once.
    methods = _methods(options.method, options.option)
    if options.target is not None and options.top_k is not None:
        raise TargetError(f"--top-k {options.top_k} with -t {' -t '.join(options.target)}: give one or the other")
    output = check_output(options.output)
    wanted = providers(options.provider, options.provider_option)
    bundle = open_bundle(options)
    explainer = load(
        bundle,
        providers=wanted,
        threads=options.threads,
        max_pixels=options.max_pixels,
        white=options.white,
        strict=options.strict,
        low_memory=options.low_memory,
        precision=options.precision,
    )
    targets = None if options.target is None else class_indices(options.target, explainer.labels)
    arguments = [
        {"method": method, "target": targets, **_limits(options, method), **settings} for method, settings in methods
    ]
    for given in arguments:
        resolve_task(**given)
    results: list[dict[str, Any]] = []
    errors: list[dict[str, str | None]] = []

    def report(image: str | None, error: OrtcamError) -> None:
        errors.append({"image": image, "error": str(error)})
        complain(str(error))

    work = _checked(explainer, arguments, report)
    folders = ResultFolders(output)
    places = _places(options, folders, [record for _, record in work])
    # The photographs come in the order of the images, less those that were reported.
    waiting = iter(zip(options.images, places, strict=True))

    def skip(_: object, error: OrtcamError) -> None:
        image, _place = next(waiting)
        report(image, error)

    for photograph in explainer.read_many(options.images if work else (), on_error=skip):
        image, folder = next(waiting)
        for given, record in list(work):
            method = given["method"]
            try:
                with progress_bar(f"{Path(image).name} {method}", quiet=options.quiet) as progress:
                    explanation = explainer.explain(photograph, progress=progress, **given)
                saved = _save(explanation, image, folder, folders, options)
            except OrtcamError as error:
                report(image, error)
                if _is_full(error):
                    work = []
                    break
                if _fails_for_all(error):
                    work = [item for item in work if item[1] is not record]
                continue
            if options.json:
                results.append({"folder": str(saved), **explanation.summary()})
            elif not options.quiet:
                print_explanation(image, explanation, saved, ours)
        if not work:
            break
    return results, errors


_Work = list[tuple[dict[str, Any], dict[str, Any]]]


def _checked(
    explainer: Explainer, arguments: Sequence[dict[str, Any]], report: Callable[[str | None, OrtcamError], None]
) -> _Work:
    """The arguments of each method that this bundle allows, and what its manifests will say of it.

    Raises:
        TargetError: a class, or a number of classes, that the model does not have.
    """
    work: _Work = []
    for given in arguments:
        try:
            work.append((given, explainer.check(**given)))
        except OptionError as error:  # the other methods are worth having
            report(None, error)
    return work


def _places(options: argparse.Namespace, folders: ResultFolders, records: Sequence[Mapping[str, Any]]) -> list[Path]:
    """The folder of each image, once it is clear that saving there loses nothing, or is forced.

    Args:
        options: of the command.
        folders: below the output folder.
        records: of each method, what its manifests will say.

    Raises:
        OutputError: results of the same images with other settings are there.
    """
    digest = functools.cache(file_digest)
    places = [folders.give(image, functools.partial(digest, image)) for image in options.images]
    if not options.force:
        rendering = {"colormap": options.colormap, "alpha": options.alpha}
        check_nothing_is_lost(
            [
                (
                    place / record["method"],
                    {**record, "image": {"sha256": digest(image), "white": options.white}, "rendering": rendering},
                )
                for image, place in zip(options.images, places, strict=True)
                if place.exists()
                for record in records
            ]
        )
    return places


def _save(
    explanation: Explanation, image: str, folder: Path, folders: ResultFolders, options: argparse.Namespace
) -> Path:
    """Save an explanation in the folder of its image, or in the next one if another command was faster.

    Where `--force` replaces something, it is of the same image or of nobody's.
    """
    rendering = {"colormap": options.colormap, "alpha": options.alpha}

    def digest() -> str | None:
        return image_sha256(explanation.provenance["image"])

    while True:
        try:
            return explanation.save(folder / explanation.method, **rendering)
        except OccupiedError:
            if options.force and folders.is_free(folder, digest):
                return explanation.save(folder / explanation.method, force=True, **rendering)
            folder = folders.give(image, digest)


def _is_full(error: OrtcamError) -> bool:
    """Whether the disk takes no more results: what has no room for one has none for the next."""
    return isinstance(error, OutputError) and getattr(error.__cause__, "errno", None) in FULL


def _fails_for_all(error: OrtcamError) -> bool:
    """Whether the method would meet the same error with the next image."""
    of_the_bundle = isinstance(error, (BundleError, OptionError, ProviderError, TargetError))
    return of_the_bundle and not isinstance(error, OutOfMemoryError)


def _limits(options: argparse.Namespace, method: str) -> dict[str, Any]:
    """The limits that go with a method; those that go with none of the methods, too, for the error they deserve."""
    given = {"batch_size": options.batch_size, "top_k": 1 if options.top_k is None else options.top_k}
    for name in ("budget", "deadline", "tolerance", "completion", "sampling_error"):
        value = getattr(options, name)
        if value is not None and (_is_limited(method, name) or not _any_limited(options, name)):
            given[name] = value
    return given


def _is_limited(method: str, name: str) -> bool:
    """Whether a limit goes with a method: some mask no image, some take no samples."""
    plan = resolve_method(method, {}).plan
    return isinstance(plan, Plan) and (name != "sampling_error" or plan.samples > 1)


def _any_limited(options: argparse.Namespace, name: str) -> bool:
    return any(_is_limited(method.strip(), name) for method in options.method.split(","))


def _methods(names: str, pairs: Sequence[str]) -> list[tuple[str, dict[str, object]]]:
    """Methods in the order given, each with those of the options that it knows.

    Raises:
        OptionError: an unknown method, an option that none of them knows, or a value that is not accepted.
    """
    given: dict[str, object] = {key.replace("-", "_"): value for key, value in pairs_of("--option", pairs).items()}
    chosen = [resolve_method(name.strip(), {}).method for name in names.split(",")]
    known = {option.name for method in chosen for option in method.options}
    methods = []
    for method in dict.fromkeys(chosen):
        own = {option.name for option in method.options}
        # A key that no method knows goes to the first, whose error says what is accepted.
        settings = {key: value for key, value in given.items() if key in own or key not in known}
        resolve_method(method.name, settings)
        methods.append((method.name, settings))
    return methods
