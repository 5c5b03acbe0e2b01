"""Checks whether a manifest can be true: numbers within bounds, and graphs as it describes them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ortcam.bundle.gates import GATE_FUNCTIONS
from ortcam.bundle.graph_contents import FLOAT32, GraphContents, Value
from ortcam.bundle.manifest import SCORE_TERMS, Manifest
from ortcam.errors import BundleError

__all__ = ["COUNTS", "RANGES", "check_graphs", "check_manifest", "check_weights"]

# Of numbers: the least and the most that a bundle has. `bundle.schema.json` says the same.
RANGES: Final = {
    "model.logit_scale": (0, 1e6),
    "model.logit_bias": (-1e6, 1e6),
    "cut.channels": (1, 2**20),
    "cut.height": (1, 16_384),
    "cut.width": (1, 16_384),
    "cut.prefix_tokens": (0, 2**20),
    "gradient.attention_heads": (1, 2**16),
    "gradient.parity.inputs": (1, 10_000),
    "gradient.parity.tolerance": (0, 1e6),
    "graphs.static_batch": (1, 4096),
    "opset": (1, 1000),
    "parity.inputs": (1, 10_000),
    "parity.tolerance": (0, 1e6),
    "parity.scorer_tolerance": (0, 1e6),
}
# Of lists and objects: the fewest entries, and the most.
COUNTS: Final = {
    "labels": (0, 100_000),
    "output_shape": (1, 16),
    "output_parts": (0, 64),
    "inputs": (0, 64),
    "graphs.score_terms": (0, len(SCORE_TERMS)),
    "layers": (0, 64),
    "files": (1, 1000),
    "gradient.inputs": (0, 66),
    "graphs.scorers": (1, 100),
    "versions": (0, 1000),
}
_MOST_METHODS: Final = 100
_MOST_OUTPUTS: Final = 2**28  # of one image: 1 GB

_LARGEST_FILE: Final = 2**40
_SHA256: Final = re.compile("[0-9a-f]{64}")
_UNUSED: Final = 2**24  # bytes of weights that no graph names, beside as many as are named

_Shape = tuple[int | None, ...]


def check_manifest(manifest: Manifest) -> None:
    """Refuse numbers and sizes that no bundle has, before anything is computed or allocated with them.

    Raises:
        BundleError: names the entry, its value, and what is accepted.
    """
    for name, (fewest, limit) in COUNTS.items():
        entries = _entry(manifest, name)
        if entries is not None and not fewest <= len(entries) <= limit:
            raise BundleError(f"bundle.json.{name} has {len(entries)} entries; accepted are {fewest} to {limit}")
    for name, (least, most) in RANGES.items():
        _check_range(f"bundle.json.{name}", _entry(manifest, name), least, most)
    _check_outputs_and_inputs(manifest)
    for i, cut in enumerate(manifest.layers):
        for name, (least, most) in RANGES.items():
            if name.startswith("cut."):
                side = name.removeprefix("cut.")
                _check_range(f"bundle.json.layers[{i}].{side}", getattr(cut, side), least, most)
    for name, variant in manifest.variants.items():
        fidelity = variant.fidelity
        if min(fidelity.images, fidelity.channels) < 1 or len(fidelity.maps) > _MOST_METHODS:
            raise BundleError(
                f"bundle.json.variants.{name}.fidelity is of {fidelity.images} images, {fidelity.channels} channels "
                f"and {len(fidelity.maps)} methods; accepted are at least 1, 1, and at most {_MOST_METHODS}"
            )
    for name, record in manifest.files.items():
        if not 0 <= record.size <= _LARGEST_FILE:
            raise BundleError(f"bundle.json.files.{name} has {record.size} bytes; accepted is 0 to {_LARGEST_FILE}")
        if not _SHA256.fullmatch(record.sha256):
            raise BundleError(
                f"bundle.json.files.{name} has the sha256 {record.sha256[:80]!r}; accepted are 64 hexadecimal digits"
            )


def _check_outputs_and_inputs(manifest: Manifest) -> None:
    if manifest.outputs > _MOST_OUTPUTS:
        raise BundleError(
            f"bundle.json.output_shape is {list(manifest.output_shape)}; accepted are at most {_MOST_OUTPUTS} outputs"
        )
    for name, fixed in manifest.inputs.items():
        if min(fixed.shape, default=0) < 0 or not _SHA256.fullmatch(fixed.sha256):
            raise BundleError(
                f"bundle.json.inputs.{name} has the shape {list(fixed.shape)} and the sha256 {fixed.sha256[:80]!r}; "
                "accepted are sizes from 0, and 64 hexadecimal digits"
            )


def _entry(manifest: Manifest, path: str) -> Any:
    """Look up an entry of the manifest; None if it, or what holds it, is absent."""
    value: Any = manifest
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


def _check_range(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise BundleError(f"{name} is {value}; accepted is {least} to {most}")


def check_graphs(manifest: Manifest, contents: Mapping[str, GraphContents]) -> None:
    """Refuse graphs whose inputs and outputs are not those that the manifest promises.

    A dimension that a graph leaves open is checked when the graph runs.

    Args:
        manifest: of the bundle.
        contents: of every graph, by file name.

    Raises:
        BundleError: names the graph, the input or output, and what the manifest says about it.
    """
    for name, graph in contents.items():
        given, made = _promised(manifest, name)
        for what, declared, promised in (("input", graph.inputs, given), ("output", graph.outputs, made)):
            for key, shape in promised.items():
                if key not in declared:
                    raise BundleError(f"{name}: it has no {what} {key!r}")
                sides = declared[key].shape or ()
                if key == "logits" and len(sides) == 2 and None not in (sides[1], shape[1]) and sides[1] != shape[1]:
                    raise BundleError(
                        f"{name}: its model has {sides[1]} classes, and bundle.json has {shape[1]} labels; accepted is "
                        "one a class"
                    )
                if not _agrees(declared[key], shape):
                    raise BundleError(
                        f"{name}: its {what} {key!r} is {_in_words(declared[key])}; by bundle.json it is float32 "
                        f"{_sides(shape)}"
                    )


def check_weights(manifest: Manifest, contents: Mapping[str, GraphContents]) -> None:
    """Refuse files of weights that are hardly used, before they are read, because they only cost memory.

    Raises:
        BundleError: names the file, its size, and how much of it the graphs use.
    """
    parts = {part for graph in contents.values() for part in graph.weights}
    for name in {file for file, _, _ in parts}:
        size, used = manifest.files[name].size, sum(length for file, _, length in parts if file == name)
        if size > 2 * used + _UNUSED:
            raise BundleError(f"{name}: {size} bytes, of which the graphs use {used}; export the bundle again")


def _promised(manifest: Manifest, name: str) -> tuple[dict[str, _Shape], dict[str, _Shape]]:
    """List what the manifest promises about the inputs and outputs of a graph file, in all its uses."""
    sides, graphs = manifest.preprocessing, manifest.graphs
    image = (None, sides.channels, sides.height, sides.width)
    features = {name: (None, *cut.shape) for name, cut in manifest.cuts.items()}
    given: dict[str, _Shape] = {}
    made: dict[str, _Shape] = {}
    if name in (graphs.features, graphs.classifier):
        given["image"] = image
    if name == graphs.features:
        made |= features
    if name == graphs.head:
        given["features"] = features["features"]
    if name in (graphs.head, graphs.classifier):
        made["logits"] = (None, manifest.outputs)
    if manifest.gradient is not None and name == manifest.gradient.graph:
        given["seed"] = (None, manifest.outputs)
        given |= {key: shape for key, shape in {**features, "image": image}.items() if key in manifest.gradient.inputs}
        made |= {key.replace("features", "gradient"): shape for key, shape in features.items()}
        if manifest.gradient.attention_heads is not None:
            tokens = manifest.cut.prefix_tokens + manifest.cut.height * manifest.cut.width
            made["attention_relevance"] = (None, manifest.gradient.attention_heads, tokens)
    for scorers in (graphs.scorers, *(variant.scorers for variant in manifest.variants.values())):
        for kind, file in scorers.items():
            if file == name:
                given["image"] = image
                if graphs.score_terms:
                    given["score"] = (None, manifest.score_width)
                given["maps"] = (None, manifest.cut.channels, manifest.cut.height, manifest.cut.width)
                made["probabilities"] = made["logits"] = (None, None)
                if kind in GATE_FUNCTIONS:
                    made["partial_maps"] = (None, sides.height, sides.width)
    return given, made


def _agrees(value: Value, promised: _Shape) -> bool:
    """Tell whether an input or output can have a shape; open dimensions can have any size."""
    if value.dtype != FLOAT32:
        return False
    if value.shape is None:
        return True
    return len(value.shape) == len(promised) and all(
        side is None or wanted is None or side == wanted for side, wanted in zip(value.shape, promised, strict=True)
    )


def _in_words(value: Value) -> str:
    kind = "float32" if value.dtype == FLOAT32 else f"of type {value.dtype}"
    return f"{kind} {'of any shape' if value.shape is None else _sides(value.shape)}"


def _sides(shape: Sequence[int | None]) -> str:
    return f"[{','.join('?' if side is None else str(side) for side in shape[:8])}]"
