"""From the text of a bundle.json, of any schema, to a `Manifest` that says nothing impossible."""

import math
import re
import reprlib
from pathlib import Path
from typing import Final, get_args

from ortcam.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, SCORE_TERMS, Manifest, Precision
from ortcam.bundle.migration import migrate
from ortcam.errors import BundleError, OptionError
from ortcam.support.strict_json import SchemaError, decode, parse_json

__all__ = ["parse_manifest"]

_LONGEST_NAME: Final = 255  # bytes, as file systems have it
_MOST_AXES: Final = 16
# What folders, drives and streams are told apart by, what no file system takes, and what ONNX Runtime's names for
# tensors in memory have.
_NOT_IN_NAMES: Final = re.compile(r"[/\\:*\x00-\x1f\x7f]|_ORT_MEM_ADDR_")


def parse_manifest(text: bytes, folder: Path) -> tuple[int, Manifest]:
    """Parse the bundle.json of a folder.

    Args:
        text: its content.
        folder: in which it lies, for messages.

    Returns:
        The schema that it was written in, and the manifest in the current schema.

    Raises:
        BundleError: not JSON, a newer schema, an unknown or impossible entry, or a file name that leaves the folder.
    """
    path = folder / MANIFEST_NAME
    try:
        raw = parse_json(text)
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}") from None
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if type(schema) is not int or schema < 1:
        raise BundleError(f"{path}: not the manifest of an ortcam bundle (schema={reprlib.repr(schema)})")
    if schema > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema {reprlib.repr(schema)} is newer than this ortcam reads ({SCHEMA_VERSION}); upgrade it or "
            "export again"
        )
    try:
        manifest = decode(Manifest, migrate(raw), "bundle.json")
    except (SchemaError, OptionError) as error:
        raise BundleError(f"{path}: {error}") from None
    for cut in (manifest.cut, *manifest.layers):
        if min(cut.channels, cut.height, cut.width) < 1 or cut.prefix_tokens < 0:
            raise BundleError(f"{path}: impossible cut: {reprlib.repr(cut)}")
    _check_outputs(manifest, path)
    _check_graphs(manifest, path)
    _check_names(manifest, folder)
    return schema, manifest


def _check_outputs(manifest: Manifest, path: Path) -> None:
    """Refuse labels and an activation that do not fit the shape of the output, or a logit scale without its bias."""
    if (manifest.model.logit_scale is None) != (manifest.model.logit_bias is None):
        raise BundleError(
            f"{path}: logit_scale is {manifest.model.logit_scale} and logit_bias {manifest.model.logit_bias}; accepted "
            "are two numbers, or null for both"
        )
    shape, labels = manifest.output_shape, len(manifest.labels)
    if not shape or min(shape) < 1:
        raise BundleError(f"{path}: output_shape is {reprlib.repr(shape)}; accepted are one or more sizes from 1")
    if manifest.activation != "identity" and len(shape) > 1:
        raise BundleError(
            f"{path}: output_shape is {reprlib.repr(shape)}, and activation {manifest.activation!r}; accepted for a "
            "tensor is 'identity'"
        )
    if manifest.output_parts:
        _check_parts(manifest, path)
        return
    if labels != (shape[0] if len(shape) == 1 else 0):
        wanted = f"{shape[0]}, one per output" if len(shape) == 1 else "none, since outputs of a tensor have no names"
        raise BundleError(f"{path}: {labels} labels for output_shape {reprlib.repr(shape)}; accepted are {wanted}")


def _check_parts(manifest: Manifest, path: Path) -> None:
    """Refuse several outputs that do not make up the one of the graphs."""
    parts = manifest.output_parts
    names = [part.name for part in parts]
    if not all(names) or len(set(names)) < len(names):
        raise BundleError(f"{path}: the outputs {reprlib.repr(names)}; accepted are names that differ")
    if any(len(part.shape) > _MOST_AXES or min(part.shape, default=1) < 1 for part in parts):
        shapes = reprlib.repr([part.shape for part in parts])
        raise BundleError(
            f"{path}: outputs of the shapes {shapes}; accepted are sizes from 1 on up to {_MOST_AXES} axes"
        )
    elements = sum(math.prod(part.shape) for part in parts)
    if manifest.output_shape != (elements,) or manifest.labels or manifest.activation != "identity":
        raise BundleError(
            f"{path}: {len(parts)} outputs of {elements} numbers, output_shape {reprlib.repr(manifest.output_shape)}, "
            f"{len(manifest.labels)} labels and activation {manifest.activation!r}; accepted for several outputs are "
            f"({elements},), no labels and 'identity'"
        )


def _check_graphs(manifest: Manifest, path: Path) -> None:
    """Refuse graphs, a gradient or variants that contradict each other."""
    graphs, gradient, why = manifest.graphs, manifest.gradient, manifest.no_gradient
    if (graphs.head is None) == (graphs.classifier is None):
        head, classifier = reprlib.repr(graphs.head), reprlib.repr(graphs.classifier)
        raise BundleError(f"{path}: head is {head} and classifier {classifier}; accepted is exactly one of the two")
    if (gradient is None) == (why is None):
        said = f"gradient is {reprlib.repr(gradient)} and no_gradient {reprlib.repr(why)}"
        raise BundleError(f"{path}: {said}; accepted is exactly one of the two")
    if gradient is not None:
        inputs = [*manifest.cuts, "image"]
        if list(gradient.inputs) != [name for name in inputs if name in gradient.inputs]:
            raise BundleError(
                f"{path}: the gradient takes {reprlib.repr(gradient.inputs)}; accepted are some of "
                f"{reprlib.repr(inputs)}, in this order"
            )
        if gradient.attention_heads is not None and manifest.cut.layout != "tokens":
            raise BundleError(
                f"{path}: attention_heads is {gradient.attention_heads}, and the layout {manifest.cut.layout!r}; "
                "accepted is null, since only tokens have attention"
            )
    if list(graphs.score_terms) != [term for term in SCORE_TERMS if term in graphs.score_terms]:
        raise BundleError(
            f"{path}: score_terms are {reprlib.repr(graphs.score_terms)}; accepted are some of {list(SCORE_TERMS)}, in "
            "this order"
        )
    accepted = [name for name in get_args(Precision) if name not in ("float32", manifest.precision)]
    for name, variant in manifest.variants.items():
        if name not in accepted:
            raise BundleError(
                f"{path}: a variant in {reprlib.repr(name)}; accepted beside {manifest.precision}: {accepted}"
            )
        if set(variant.scorers) != set(graphs.scorers):
            found = reprlib.repr([*variant.scorers])
            raise BundleError(f"{path}: the scorers in {name} are not those of the other graphs: {found}")


def _check_names(manifest: Manifest, folder: Path) -> None:
    for name in manifest.files:
        if name in ("", ".", "..", MANIFEST_NAME) or _NOT_IN_NAMES.search(name) or len(name.encode()) > _LONGEST_NAME:
            raise BundleError(
                f"{folder}: the file name {reprlib.repr(name)} leaves the bundle's folder; a plain name is accepted"
            )
    graphs, probe = manifest.graphs, manifest.probe
    named = [("graph", name) for name in (graphs.features, graphs.head, graphs.classifier, *graphs.scorers.values())]
    named += [("graph", name) for variant in manifest.variants.values() for name in variant.scorers.values()]
    if manifest.gradient is not None:
        named += [("graph", manifest.gradient.graph)]
    if probe is not None:
        named += [("probe", name) for name in (probe.images, probe.logits, probe.gradient) if name is not None]
    for what, file in named:
        if file is not None and file not in manifest.files:
            raise BundleError(f"{folder}: the {what} {reprlib.repr(file)} is not among the bundle's files")
