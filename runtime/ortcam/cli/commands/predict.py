"""`ortcam predict`: the most probable classes of images, as the exported model gives them."""

import argparse
import contextlib
import csv
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Activation, Manifest
from ortcam.cli.common import EXIT_BAD_INPUT, add_execution, add_image_reading, add_json, add_quiet, providers_of
from ortcam.cli.images import add_images, check_images, image_names
from ortcam.cli.models import add_model, open_explainer
from ortcam.cli.parsers import add_command
from ortcam.cli.progress import Bar
from ortcam.errors import OptionError, OrtcamError
from ortcam.explainer import Explainer
from ortcam.images.inputs import display_name, from_argument
from ortcam.images.photograph import Photograph, read_ahead
from ortcam.results.prediction import Prediction
from ortcam.support.ranges import TOP_K
from ortcam.support.terminal import columns, complain, json_text, others_aside, printable, say, shortened

__all__ = ["add_predict"]

_TOP_K: Final = 5
_COLUMNS: Final = ("image", "rank", "index", "label")
_WIDEST_NAME: Final = 32
_MEANING: Final[dict[Activation, str]] = {
    "softmax": "the probabilities add up to 1",
    "sigmoid": "each class has a probability of its own",
    "identity": "values, the largest first",
}

_Found = TypeVar("_Found")


def add_predict(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "predict",
        _predict,
        help="print the most probable classes of images",
        description="Print what the exported model predicts: the most probable classes of each image, or its values.",
        examples=("ortcam predict shapes photo.jpg", "ortcam predict model.onnx photos/ --csv"),
    )
    add_model(parser)
    add_images(parser)
    results = parser.add_argument_group("results")
    results.add_argument(
        "--top-k",
        type=TOP_K,
        metavar="K",
        help="classes per image (default: 5; for many images, as many as a line holds)",
    )
    results.add_argument("--csv", action="store_true", help="print the results as CSV, a line per image and class")
    add_json(results)
    add_quiet(results)
    add_execution(parser, passes=False)
    add_image_reading(parser)


def _predict(options: argparse.Namespace) -> int:
    if options.json and options.csv:
        raise OptionError("--json with --csv: give one or the other")
    with others_aside() as ours:
        wanted = providers_of(options)
        check_images(options)
        explainer = open_explainer(options, wanted, masks=False)
        names = image_names(options, arrays=explainer.bundle.manifest.preprocessing.needs_samples)
        manifest = explainer.bundle.manifest
        errors: list[dict[str, str]] = []
        results: list[dict[str, Any]] = []
        tell = _teller(options, names, manifest, results, ours)
        watched = not (options.json or options.csv) and ours.isatty()  # lines as they come are signs of life
        with Bar("predicting", total=len(names), unit="images", quiet=options.quiet or watched) as bar:

            def fail(name: str, error: OrtcamError) -> None:
                errors.append({"image": name, "error": str(error)})
                with bar.aside():
                    complain(str(error))

            top_k = _TOP_K if options.top_k is None else options.top_k

            def predicted(photograph: Photograph) -> list[Prediction] | NDArray[np.float32]:
                return explainer.top(photograph, top_k=top_k) if manifest.has_classes else explainer.predict(photograph)

            found_each = _found(explainer, names, options.max_pixels, predicted, fail)
            for done, (name, found) in enumerate(found_each, 1):
                tell(name, found)
                bar.update(done, note=os.path.basename(name))  # noqa: PTH119 - a text, as it was given
    if options.json:
        record: dict[str, object] = {"model": manifest.model.name}
        record |= _outputs(manifest)
        record["activation"] = manifest.activation
        print(json_text(record | {"predictions": results, "errors": errors}))
    return EXIT_BAD_INPUT if errors else 0


def _found(
    explainer: Explainer,
    names: Sequence[str],
    max_pixels: int,
    predicted: Callable[[Photograph], _Found],
    fail: Callable[[str, OrtcamError], None],
) -> Iterator[tuple[str, _Found]]:
    """What is predicted for each image that can be read; the others go to `fail`."""
    sources = [(display_name(name), from_argument(name, max_pixels=max_pixels)) for name in names]
    with contextlib.closing(read_ahead(sources, lambda image: explainer.read(image[1]))) as ahead:
        for (name, _), photograph in ahead:
            try:
                found = predicted(photograph())
            except OrtcamError as error:
                fail(name, error)
                continue
            yield name, found


def _teller(
    options: argparse.Namespace, names: Sequence[str], manifest: Manifest, results: list[dict[str, Any]], ours: TextIO
) -> Callable[[str, Any], None]:
    """What prints, or keeps for JSON, the classes or the values of an image."""
    if not manifest.has_classes:
        return _teller_of_tensors(options, manifest, results, ours)
    number = "value" if manifest.activation == "identity" else "probability"
    if options.json:
        return lambda name, found: results.append(
            {
                "image": name,
                "classes": [{"index": item.index, "label": item.label, number: item.probability} for item in found],
            }
        )
    if options.csv:
        writer = csv.writer(ours, lineterminator="\n")
        writer.writerow((*_COLUMNS, number))
        return lambda name, found: writer.writerows(
            (printable(name), rank, item.index, printable(item.label), f"{item.probability:.9g}")
            for rank, item in enumerate(found, 1)
        )
    if not options.quiet:
        what, meaning = ("outputs" if number == "value" else "classes"), _MEANING[manifest.activation]
        say(f"{manifest.model.name}: {manifest.outputs} {what}, {manifest.activation} ({meaning})", ours)
    if len(names) == 1 or options.top_k is not None:
        return lambda name, found: _print_table(name, found, ours)
    shared = _shared_folder(names)
    width = min(max(len(printable(display_name(name).removeprefix(shared))) for name in names), _WIDEST_NAME)
    return lambda name, found: _print_row(name.removeprefix(shared), found, width, ours)


def _teller_of_tensors(
    options: argparse.Namespace, manifest: Manifest, results: list[dict[str, Any]], ours: TextIO
) -> Callable[[str, NDArray[np.float32]], None]:
    """What prints, or keeps for JSON, the range of a tensor, or of each of several."""
    if manifest.output_parts:
        return _teller_of_parts(options, manifest, results, ours)
    if options.json:
        return lambda name, found: results.append({"image": name, **_range(found)})
    if options.csv:
        writer = csv.writer(ours, lineterminator="\n")
        writer.writerow(("image", "least", "mean", "largest"))
        return lambda name, found: writer.writerow(
            (printable(name), *(f"{value:.9g}" for value in _range(found).values()))
        )
    if not options.quiet:
        say(f"{manifest.model.name}: a tensor {list(manifest.output_shape)} per image", ours)

    def tell(name: str, found: NDArray[np.float32]) -> None:
        values = "  ".join(f"{word} {value:.4g}" for word, value in _range(found).items())
        say(f"{shortened(printable(name), max(columns() - len(values) - 2, 12))}  {values}", ours)

    return tell


def _teller_of_parts(
    options: argparse.Namespace, manifest: Manifest, results: list[dict[str, Any]], ours: TextIO
) -> Callable[[str, NDArray[np.float32]], None]:
    """What prints, or keeps for JSON, the range of each of several outputs."""

    def ranges(found: NDArray[np.float32]) -> dict[str, dict[str, float]]:
        return {name: _range(values) for name, values in manifest.outputs_by_name(found).items()}

    if options.json:
        return lambda name, found: results.append({"image": name, "outputs": ranges(found)})
    if options.csv:
        writer = csv.writer(ours, lineterminator="\n")
        writer.writerow(("image", "output", "least", "mean", "largest"))
        return lambda name, found: writer.writerows(
            (printable(name), printable(output), *(f"{value:.9g}" for value in span.values()))
            for output, span in ranges(found).items()
        )
    if not options.quiet:
        say(f"{manifest.model.name}: {len(manifest.output_parts)} outputs per image", ours)
    shapes = {part.name: f"{printable(part.name)} {list(part.shape)}" for part in manifest.output_parts}

    def tell(name: str, found: NDArray[np.float32]) -> None:
        say(shortened(printable(name), columns()), ours)
        for output, span in ranges(found).items():
            values = "  ".join(f"{word} {value:.4g}" for word, value in span.items())
            say(f"  {shortened(shapes[output], max(columns() - len(values) - 4, 12))}  {values}", ours)

    return tell


def _outputs(manifest: Manifest) -> dict[str, object]:
    """What the model gives for an image, for JSON."""
    if manifest.output_parts:
        return {"outputs": {part.name: part.shape for part in manifest.output_parts}}
    return {"classes": manifest.outputs} if manifest.has_classes else {"shape": manifest.output_shape}


def _range(found: NDArray[np.float32]) -> dict[str, float]:
    return {"least": float(found.min()), "mean": float(found.mean(dtype=np.float64)), "largest": float(found.max())}


def _value(item: Prediction) -> str:
    return f"{item.probability:>7.2%}" if item.is_probability else f"{item.probability:>7.4g}"


def _shared_folder(names: Sequence[str]) -> str:
    """The folder that all images lie in, which a row leaves out; empty where there is none.

    Example:
        >>> _shared_folder(["a/b/c.jpg", "a/b/d/e.jpg"]), _shared_folder(["a.jpg", "b/c.jpg"])
        ('a/b/', '')
    """
    common = os.path.commonprefix(list(names))  # noqa: RUF071 - cut at a separator below
    return common[: common.rfind(os.sep) + 1]


def _print_table(image: str, found: Sequence[Prediction], ours: TextIO) -> None:
    """A line per class."""
    width = columns()
    say(shortened(printable(image), width), ours)
    room = width - 11 - max(len(_value(item)) for item in found)
    for item in found:
        label = shortened(printable(item.label), room)
        say(f"  {item.index:>5}  {label:<{room}}  {_value(item):>{width - 11 - room}}", ours)


def _print_row(image: str, found: Sequence[Prediction], width: int, ours: TextIO) -> None:
    """One line with the most probable class, and as many more as it holds."""
    line = f"{shortened(printable(image), width):<{width}}"
    room = columns() - len(line)
    for place, item in enumerate(found):
        label = shortened(printable(item.label), max(room - 10, 8)) if place == 0 else printable(item.label)
        part = f"  {_value(item)} {label}"
        if place and len(part) > room:
            break
        line += part
        room -= len(part)
    say(line, ours)
