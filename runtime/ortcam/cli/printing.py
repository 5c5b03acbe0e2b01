"""What `ortcam` prints of a bundle, of a model and of an explanation."""

import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from ortcam.bundle import Bundle, Cut, Graphs, Manifest, OutputPart, Parity, Variant
from ortcam.images.preprocessing import Preprocessing
from ortcam.methods import fitting_methods
from ortcam.parity import graphs_in_words
from ortcam.request import part_example
from ortcam.results.explanation import Explanation
from ortcam.support.terminal import columns, printable, say, shortened

__all__ = [
    "parity_figures",
    "print_bundle",
    "print_image",
    "print_inspection",
    "print_preprocessing",
    "print_row",
    "say_wrapped",
]

_TITLE: Final = 15  # columns of the titles of `inspect`
_NAMES: Final = 22  # columns of a row for the names of image and class, at least


def print_image(
    image: str, explanations: Sequence[Explanation], sheet: Path | None, ours: TextIO | None = None
) -> None:
    """Print what was found in one image: a line per class, a line per method, and the image to open.

    Args:
        image: its name.
        explanations: of this image, one per method, for the same classes.
        sheet: the image of all of them.
        ours: where results go; None: standard output.
    """
    width = columns()
    say(shortened(printable(image), width), ours)
    first = explanations[0]
    places = ["" if target < 0 else str(target) for target in first.targets]  # a score has no number
    digits, values = max(map(len, places)), [_value(first, place) for place in range(len(places))]
    room = width - digits - 6 - max(7, *map(len, values))
    for place, text, value in zip(places, first.labels, values, strict=True):
        label = shortened(printable(text), room)
        say(f"  {place:>{digits}}  {label:<{room}}  {value}" if digits else f"  {label:<{room + 2}}  {value}", ours)
    longest = max(len(explanation.method) for explanation in explanations)
    for explanation in explanations:
        words = f"  {explanation.method:<{longest}}  {explanation.stats.seconds:.2f} s  {', '.join(_cost(explanation))}"
        for line in textwrap.wrap(words, width, subsequent_indent=" " * (longest + 4), break_on_hyphens=False):
            say(line, ours)
        if explanation.chosen:
            indent = " " * (longest + 4)
            chosen = f"{indent}auto: {explanation.chosen}"
            for line in textwrap.wrap(chosen, width, subsequent_indent=indent, break_on_hyphens=False):
                say(line, ours)
    if sheet is not None:
        say(f"  {sheet}", ours)


def print_row(image: str, explanations: Sequence[Explanation], ours: TextIO | None = None) -> None:
    """Print what was found in one of many images, in one line: name, likeliest class, time, and what is unusual.

    Args:
        image: its name.
        explanations: of this image, one per method, for the same classes.
        ours: where results go; None: standard output.
    """
    first = explanations[0]
    seconds = sum(explanation.stats.seconds for explanation in explanations)
    note = _briefly(explanations)
    behind = f" {_value(first, 0)}"
    for more in (
        f" {seconds:7.2f} s",
        f"  {note}" if note else "",
    ):  # what a narrow terminal has no room for is left out
        behind += more if columns() - len(behind) - len(more) >= _NAMES else ""
    room = columns() - len(behind) - 2
    left = min(max(len(printable(image)), 12), room - min(len(printable(first.labels[0])), room // 2))
    name = shortened(printable(image), left)
    label = shortened(printable(first.labels[0]), room - left)
    say(f"{name:<{left}}  {label:<{room - left}}{behind}", ours)


def _value(explanation: Explanation, place: int) -> str:
    """The probability of a class, in percent; the value of a score or an output."""
    value = explanation.probabilities[place]
    return f"{value:>7.2%}" if explanation.are_probabilities else f"{value:>10.4g}"


def _cost(explanation: Explanation) -> list[str]:
    """What an explanation took, and how exact it is, in words."""
    stats = explanation.stats
    words = [f"{stats.copies} copies of the image"] if stats.copies > 1 else []
    if stats.scored_channels < stats.live_channels:
        words.append(f"{stats.scored_channels} of {stats.live_channels} channels scored")
        words.append(_error(stats.estimated_error))
    elif stats.passes:
        words.append(stats.passes_in_words)
        words += ["exact"] if stats.standard_error is None else []
    else:
        words.append(stats.passes_in_words if stats.head_passes or stats.gradient_passes else "no forward passes")
    if stats.standard_error is not None:
        words.append(
            f"fewer samples than the method has: standard error of a weight up to {max(stats.standard_error):.1%}"
        )
    words += [f"simplified to meet the deadline: {'; '.join(stats.simplified)}"] if stats.simplified else []
    if stats.seconds_late > 0:
        words.append(f"{1000 * stats.seconds_late:.0f} ms after the deadline")
    flat = [
        shortened(printable(label), 30)
        for label, flat in zip(explanation.labels, explanation.flat, strict=True)
        if flat
    ]
    if flat:
        words.append(f"flat map, nothing speaks for {', '.join(flat)}")
    return words


def _error(estimate: tuple[float, ...] | None) -> str:
    """How far a map may be from the exact one, in words; an estimate of 1 knows nothing."""
    if estimate is None:
        return "error not estimated"
    return "error not known yet" if max(estimate) >= 1 else f"estimated error {max(estimate):.3f}"


def _briefly(explanations: Sequence[Explanation]) -> str:
    """The most important thing that is unusual in some explanations, in a few words."""
    if any(explanation.flat.any() for explanation in explanations):
        return "flat map"
    if any(explanation.stats.seconds_late > 0 for explanation in explanations):
        return "late"
    partly = [
        item.stats.estimated_error for item in explanations if item.stats.scored_channels < item.stats.live_channels
    ]
    if not partly:
        return ""
    errors = [error for estimate in partly if estimate is not None for error in estimate]
    return "error not known yet" if not errors or max(errors) >= 1 else f"error {max(errors):.2f}"


def print_inspection(inspection: Any) -> None:
    """Print what `inspect MODEL` found: inputs, outputs, classes, preprocessing, and the layers to cut at."""
    _print_model(inspection)
    print(f"graph          {inspection.nodes} nodes, {_millions(inspection.macs)} multiply-adds for an image")
    passed = "every path from image to logits passes these"
    if not inspection.layers:
        say_wrapped(
            "layers         none that every path from image to logits passes; name one inside a branch with --layer"
        )
    elif inspection.default is None:
        say_wrapped(f"layers         {passed}; none is a good default, name one with --layer")
    else:
        say_wrapped(f"layers         {passed}; * is the default")
    rows = [("", "", "module", "tensor", "layout", "maps [C,h,w]", "behind it")]
    for index, layer in enumerate(inspection.layers):
        mark = "*" if layer == inspection.default else ""
        rows.append((mark, str(index), *_described(layer), _millions(layer.macs_behind)))
    if inspection.layers:
        _print_table(rows)
    if inspection.branches:
        say_wrapped("branches       data reach the logits around these; --layer takes them by module or tensor")
        _print_table(
            [
                ("", "", "module", "tensor", "layout", "maps [C,h,w]", ""),
                *(("", "-", *_described(layer), "") for layer in inspection.branches),
            ]
        )


_ENDINGS: Final[dict[str | None, str]] = {
    None: "none found: outputs count as logits of a softmax, unless --activation says otherwise",
    "probabilities": "none known, but the outputs are probabilities",
    "identity": "none: the outputs are values",
}


def _print_model(inspection: Any) -> None:
    source = inspection.source
    made = [f"opset {inspection.opset}"] if inspection.opset else []
    made += [f"made by {inspection.producer}"] if inspection.producer else []
    say_wrapped(f"model          {source.record.name} ({', '.join([source.record.source, *made])})")
    for title, values in (("inputs", inspection.inputs), ("outputs", inspection.outputs)):
        for value in values:
            say_wrapped(f"{title:<15}{value}")
    if inspection.output_parts:
        _print_parts(inspection.output_parts)
    elif len(inspection.output_shape) == 1:
        say_wrapped(f"classes        {inspection.classes}: {_classes_in_words(inspection)}")
    else:
        say_wrapped(_tensor_in_words(inspection.output_shape))
    say_wrapped(f"activation     {_ENDINGS.get(inspection.ending, inspection.ending)}")
    if source.metadata:
        say_wrapped(
            f"metadata       {', '.join(f'{key}={_shortened(value)}' for key, value in source.metadata.items())}"
        )
    if inspection.knows_preprocessing:
        print_preprocessing(source.preprocessing, source.preprocessing_source)
    else:
        say_wrapped("preprocessing  not known: say --preset or --mean and --std when you export or explain")
    for assumed in source.assumed:
        say_wrapped(f"assumed        {assumed}")
    for note in inspection.notes:
        say_wrapped(f"note           {note}")


def _print_parts(parts: Sequence[OutputPart]) -> None:
    """Print several outputs, and how one of their values is explained."""
    for part in parts:
        say_wrapped(f"output         {printable(part.name)} {list(part.shape)}")
    say_wrapped(f"{'':15}values; `ortcam explain --score {shlex.quote(part_example(parts[0]))}`")


def _tensor_in_words(shape: Sequence[int]) -> str:
    return f"output         {list(shape)}: values; `ortcam explain --score 'output[...]'`"


def _classes_in_words(inspection: Any) -> str:
    labels = inspection.labels
    if labels is None:
        offered = inspection.source.labels
        not_fitting = "" if offered is None else f" ({inspection.source.labels_source} has {len(offered)} names)"
        return f"no names found, class 0 to class {inspection.classes - 1}{not_fitting}; --labels FILE names them"
    more = " ..." if len(labels) > 6 else ""
    return f"{', '.join(labels[:6])}{more} ({inspection.source.labels_source or 'as given'})"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _described(layer: Any) -> tuple[str, str, str, str]:
    """Module, tensor, layout and shape of a layer."""
    cut = layer.cut
    layout = f"{cut.layout} int8" if layer.quantized else cut.layout
    return cut.module or "-", cut.tensor, layout, f"[{cut.channels},{cut.height},{cut.width}]"


def _millions(macs: int | None) -> str:
    return "?" if macs is None else f"{macs / 1e6:.1f} M"


def print_bundle(bundle: Bundle) -> None:
    """Print what is in a bundle."""
    manifest = bundle.manifest
    parity = manifest.parity
    size = sum(record.size for record in manifest.files.values())
    say_wrapped(f"bundle         {bundle.path} ({size / 1e6:.1f} MB, schema {bundle.schema})")
    print(f"sha256         {bundle.sha256}")
    weights = manifest.model.weights or (
        "random" if manifest.model.source == "torchvision" else "as the module had them"
    )
    say_wrapped(f"model          {manifest.model.name} ({manifest.model.source}), weights {weights}")
    _print_outputs(manifest)
    for name, fixed in manifest.inputs.items():
        value = "" if fixed.value is None else f", {_shortened(fixed.value)}"
        say_wrapped(f"input          {name}, fixed: {fixed.dtype} {list(fixed.shape)}{value}")
    print_preprocessing(manifest.preprocessing, manifest.preprocessing_source)
    for title, cut in zip(("cut", *["further"] * len(manifest.layers)), manifest.cuts.values(), strict=True):
        _print_cut(title, cut)
    if manifest.graphs.head is None:
        works = ", ".join(fitting_methods(manifest))
        words = f"no head of its own, only the whole model; methods that work: {works}"
        say_wrapped(f"{'':15}inside a branch: {words}")
    _print_gradient(manifest)
    say_wrapped(f"parity         {parity_figures(parity, manifest.graphs)} against {parity.reference}")
    probe = "none (schema 1); it cannot be verified" if manifest.probe is None else f"{parity.inputs} pictures"
    print(f"probe          {probe}")
    say_wrapped(
        f"graphs         opset {manifest.opset}, {manifest.precision}; scorers {', '.join(manifest.graphs.scorers)}"
    )
    if (static := manifest.graphs.static_batch) is not None:
        say_wrapped(f"{'':15}all shapes fixed: {static} rows per run of scorers and head, 1 of features and gradient")
    for name, variant in manifest.variants.items():
        _print_variant(name, variant)
    say_wrapped(f"made with      {', '.join(f'{tool} {version}' for tool, version in manifest.versions.items())}")


def _print_outputs(manifest: Manifest) -> None:
    """Print what the model gives for an image: classes, named values, or a tensor."""
    if manifest.output_parts:
        _print_parts(manifest.output_parts)
        return
    if not manifest.has_classes:
        say_wrapped(_tensor_in_words(manifest.output_shape))
        return
    more = " ..." if len(manifest.labels) > 6 else ""
    labels = printable(", ".join(manifest.labels[:6]))
    title, kind = ("outputs", "values") if manifest.activation == "identity" else ("classes", manifest.activation)
    say_wrapped(f"{title:<15}{len(manifest.labels)}: {labels}{more}; {kind}")
    if manifest.model.embeddings_sha256 is not None:
        model = manifest.model
        say_wrapped(f"{'':15}cosines with embeddings of SHA-256 {model.embeddings_sha256}")
        if model.logit_scale is not None:
            say_wrapped(f"{'':15}logit scale {model.logit_scale:g}, logit bias {model.logit_bias:g}")


def _print_cut(title: str, cut: Cut) -> None:
    prefix = f", {cut.prefix_tokens} prefix tokens" if cut.prefix_tokens else ""
    shape = f"[{cut.channels},{cut.height},{cut.width}]"
    say_wrapped(f"{title:<15}{cut.module or cut.tensor} ({cut.tensor}), maps {shape}, {cut.layout}{prefix}")


def _print_gradient(manifest: Manifest) -> None:
    """Print what gradient methods have in a bundle, or why they have nothing."""
    gradient = manifest.gradient
    if gradient is None:
        say_wrapped(f"gradient       none: {manifest.no_gradient}")
        return
    parity = gradient.parity
    said = f"{parity.differences:.1e} from central differences"
    said += "" if parity.autograd is None else f", {parity.autograd:.1e} from PyTorch's autograd"
    taken = f"of {', '.join(gradient.inputs)}" if gradient.inputs else "the same for every image"
    say_wrapped(f"gradient       {taken}; {said}, relative; accepted {parity.tolerance:.0e}")


def _print_variant(name: str, variant: Variant) -> None:
    fidelity = variant.fidelity
    images = f"{fidelity.images} {'held-out ' if fidelity.held_out else ''}pictures"
    calibrated = f"; calibrated on {variant.calibration}" if variant.calibration else ""
    say_wrapped(f"variant        {name}: scorers {variant.parity:.1e} from float32's, relative{calibrated}")
    say_wrapped(f"{'':15}maps against float32's on {images}, at most {fidelity.channels} channels:")
    for method, like in fidelity.maps.items():
        say_wrapped(
            f"{'':15}{printable(method)}: Pearson {like.pearson_mean:.4f} (least {like.pearson_min:.4f}), "
            f"Spearman {like.spearman_mean:.4f} (least {like.spearman_min:.4f})"
        )
    say_wrapped(f"{'':15}same most probable class in {fidelity.top1:.1%} of the passes")


def parity_figures(parity: Parity, graphs: Graphs) -> str:
    """Parity in one line, with the tolerances."""
    return (
        f"{parity.logits:.1e} for {graphs_in_words(graphs)}, {parity.scorer:.1e} for the scorers, relative, on "
        f"{parity.inputs} pictures; accepted {parity.tolerance:.0e}, {parity.scorer_tolerance:.0e}"
    )


def print_preprocessing(preprocessing: Any, source: str) -> None:
    """Print what happens to an image before the model sees it, and who said so."""
    p = preprocessing
    sides = f"short side to {p.resize}" if p.keep_aspect else f"to {p.resize} x {p.resize}"
    resize = f"{sides}, centre crop {p.height} x {p.width}" if p.resize else f"to {p.height} x {p.width}"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    order = "" if p.channel_order == "rgb" else f"channels {p.channel_order}, "
    scale = "" if p.scale == 1 else f"scale {p.scale:g}, "
    say_wrapped(f"preprocessing  {resize}, {p.interpolation}; {order}{scale}mean {mean}, std {std} ({source})")
    _print_channels(p)


def _print_channels(p: Preprocessing) -> None:
    """Print what the channels are, what masks hide to, and what maps are drawn over, where it is not plain RGB."""
    if p.channels == 3 and not p.needs_samples:
        return
    kinds = {"grey": "grey, as Pillow weighs it", "grey-opencv": "grey, as OpenCV weighs it"}
    what = kinds.get(p.channel_order, f"{p.channels}, {p.channel_order}")
    values = "8-bit levels" if p.value_range is None else "samples from {:g} to {:g}".format(*p.value_range)
    say_wrapped(f"channels       {what}; {values}")
    hidden = " ".join(f"{value:g}" for value in p.mean)
    say_wrapped(f"masks          hide to {hidden}, of pixels in [0,{p.scale:g}]")
    if p.needs_samples:
        bands = f"band{'s' * (len(p.displayed) > 1)} {' '.join(map(str, p.displayed))}"
        say_wrapped(f"display        {bands}, counted from 0, each from its 2nd to its 98th percentile")


def say_wrapped(line: str) -> None:
    """Print one line of ours; on a terminal that is narrower, its rest goes below, indented behind the titles."""
    watched = sys.stdout is not None and sys.stdout.isatty()
    lines = textwrap.wrap(
        printable(line), columns(), subsequent_indent=" " * _TITLE, break_long_words=False, break_on_hyphens=False
    )
    for part in lines if watched else [line]:
        say(part)


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
