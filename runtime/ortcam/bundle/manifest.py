"""The content of bundle.json as dataclasses: model, cuts, graphs, gradient, parity, variants, files.

`bundle.schema.json`, beside this module, is the same schema for other readers (JSON Schema, draft 2020-12).
"""

import dataclasses
import itertools
import math
from typing import Any, Final, Literal, get_args

from numpy.typing import NDArray

from ortcam.bundle.measured import Fidelity, GradientParity, Parity
from ortcam.errors import OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam.support.strict_json import OPTIONAL, encode_json
from ortcam.support.terminal import printable, shortened
from ortcam.support.words import counted

__all__ = [
    "LARGEST_MANIFEST",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "SCORE_TERMS",
    "Activation",
    "Cut",
    "FileRecord",
    "FixedInput",
    "Gradient",
    "Graphs",
    "Manifest",
    "ModelRecord",
    "OutputPart",
    "Precision",
    "Probe",
    "Variant",
    "graph_files",
    "precision_by_name",
]

SCHEMA_VERSION: Final = 5
MANIFEST_NAME: Final = "bundle.json"

LARGEST_MANIFEST: Final = 2**23  # bytes; a hundred thousand labels of 80 letters
_SHOWN: Final = 3  # labels in a representation
_LONGEST_LIST: Final = 60  # characters of them

# Of "identity" the outputs are values: of a regression, an embedding, or a raw tensor.
Activation = Literal["softmax", "sigmoid", "identity"]

# Blocks of the scorers' input `score`, in this order; the last two are one number each, the others one per output.
SCORE_TERMS: Final = ("logits", "probabilities", "direction", "entropy", "one")

# What graphs compute in; "qnn" is 16-bit activations and 8-bit weights, by the rules of Qualcomm's NPUs.
Precision = Literal["float32", "float16", "int8", "qnn"]
_SHORT_PRECISIONS: Final[dict[str, Precision]] = {"fp32": "float32", "fp16": "float16"}


@dataclasses.dataclass(frozen=True)
class ModelRecord:
    """Which classifier this is and where its weights came from.

    Attributes:
        name: torchvision name, `package.module:callable`, or the stem of the `.onnx` file.
        source: "torchvision", "torch" or "onnx".
        weights: name of the torchvision weights, of the checkpoint file, or None for random weights.
        weights_sha256: SHA-256 of the checkpoint file or of the `.onnx` file, if there is one.
        embeddings_sha256: SHA-256 of the file of embeddings that the classes of an image encoder were made of, if they
            were.
        logit_scale: of those classes: logits are logit_scale * cosine + logit_bias. None where there are none, or where
            an older export did not record it.
        logit_bias: see `logit_scale`.
    """

    name: str
    source: Literal["torchvision", "torch", "onnx"]
    weights: str | None
    weights_sha256: str | None
    embeddings_sha256: str | None = None
    logit_scale: float | None = dataclasses.field(default=None, metadata=OPTIONAL)
    logit_bias: float | None = dataclasses.field(default=None, metadata=OPTIONAL)


@dataclasses.dataclass(frozen=True)
class FixedInput:
    """An input of the original beside the image, whose value is part of the graphs.

    Attributes:
        dtype: of the value, as numpy calls it.
        shape: of the value.
        value: the text that gave it, such as "0.5" or "[1, 2]"; None if it came from a file.
        sha256: SHA-256 of the value's bytes, C-contiguous and little-endian.
    """

    dtype: str
    shape: tuple[int, ...]
    value: str | None
    sha256: str


@dataclasses.dataclass(frozen=True)
class OutputPart:
    """One of several outputs of the original, which the graphs give one behind the other in one row.

    Attributes:
        name: as the original calls it.
        shape: of it for one image; empty for a single number.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has for one image."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Cut:
    """Where the classifier is split into features and head.

    Attributes:
        tensor: name of the tensor in the exported graph.
        module: path of the module that makes it, if the graph still knows.
        layout: "nchw" [N,C,h,w], "nhwc" [N,h,w,C], or "tokens" [N,T,C] with T = prefix_tokens + height * width.
        channels: C, the number of maps.
        height: h, rows of a map.
        width: w, columns of a map.
        prefix_tokens: tokens before the patches (the class token); 0 for the other layouts.
    """

    tensor: str
    module: str | None
    layout: Literal["nchw", "nhwc", "tokens"]
    channels: int
    height: int
    width: int
    prefix_tokens: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the features of one image, without the batch."""
        if self.layout == "nchw":
            return self.channels, self.height, self.width
        if self.layout == "nhwc":
            return self.height, self.width, self.channels
        return self.prefix_tokens + self.height * self.width, self.channels


@dataclasses.dataclass(frozen=True)
class Graphs:
    """File names of the graphs. A bundle has either `head` or `classifier`.

    Attributes:
        features: image [N,C,H,W] -> features.
        head: features -> logits [N,outputs], if every path passes the cut.
        classifier: image [N,C,H,W] -> logits [N,outputs], if the cut lies inside a branch. Other paths then go around
            the cut, so no head is a function of the features alone.
        scorers: mask kind ("linear", "noise", or a gate) -> scorer graph.
        score_terms: the blocks of the scorers' input `score`, in this order: "logits", "probabilities", "direction",
            "entropy", "one". Empty where the scorers have no such input, as before schema 5.
        static_batch: the batch size where every dimension of the graphs is fixed, as NPUs need it: the head and the
            scorers have this many rows, features, classifier and gradient one. None: batches of any size.
    """

    features: str
    head: str | None
    classifier: str | None
    scorers: dict[str, str]
    score_terms: tuple[str, ...] = ()
    static_batch: int | None = dataclasses.field(default=None, metadata=OPTIONAL)


@dataclasses.dataclass(frozen=True)
class Gradient:
    """The graph of the head's derivative: `seed` float32 [K,outputs] -> `gradient` float32 [K,*cut.shape].

    Row k of `gradient` is d(sum_c seed[k,c] logit_c) / d features, with the logits before softmax or sigmoid. For the
    further layers the outputs are `gradient_1`, `gradient_2`, ... Where the head has attention over the tokens of the
    cut, the output `attention_relevance` float32 [K,attention_heads,T] says what each token gives through each of its
    heads: sum over the queries q of a_qt d(sum_c seed[k,c] logit_c) / d a_qt, a being the attention.

    Attributes:
        graph: its file name.
        inputs: its inputs beside `seed`, in this order: "features" [N,*cut.shape], "features_1", ... of the further
            layers, and "image" [N,C,H,W] where the logits depend on it beside the features. N is 1, which holds for all
            K seeds, or K. Empty where the logits are affine in the features.
        parity: what was measured at export.
        attention_heads: heads of the attention in the output `attention_relevance`; None if there is no such output.
    """

    graph: str
    inputs: tuple[str, ...]
    parity: GradientParity
    attention_heads: int | None = None


@dataclasses.dataclass(frozen=True)
class Probe:
    """File names of the images on which parity was measured, so that it can be measured again where the bundle is used.

    Attributes:
        images: uint8 [N,H,W,C] at the size of the model's input: RGB, or levels of its channels
            (`Preprocessing.of_levels`).
        logits: float32 [N,outputs], given by the original model.
        gradient: float32 [L,N,S], S elements of the gradient of each image's most probable class, for each of L layers,
            the primary one first; None if the bundle has no gradient.
    """

    images: str
    logits: str
    gradient: str | None = None


@dataclasses.dataclass(frozen=True)
class Variant:
    """The scorers in a lower precision. Their inputs and outputs are those of the float32 scorers.

    Attributes:
        scorers: mask kind -> scorer graph, for the same kinds.
        parity: max |logits - float32's| / max |float32's| of images masked by maps in [0,1], over all scorers.
        tolerance: bound for `parity` where the bundle is used, since other machines round differently.
        calibration: on which images the ranges of integers were measured, in words; None if no range was needed.
        fidelity: how it changes maps.
    """

    scorers: dict[str, str]
    parity: float
    tolerance: float
    calibration: str | None
    fidelity: Fidelity


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file of the bundle."""

    size: int
    sha256: str


@dataclasses.dataclass(frozen=True, repr=False)
class Manifest:
    """The content of `bundle.json`.

    Attributes:
        schema: version of this schema. A reader refuses a newer version and migrates an older one.
        model: the classifier.
        labels: one name per output, in the order of the logits; none where the output of an image is a tensor, or
            where there are several outputs.
        activation: from logits to probabilities: "softmax" over the classes, or the "sigmoid" of each. "identity": the
            outputs are values, and "probabilities" are the same values.
        output_shape: of the output for one image: (classes,), or the shape of a tensor, which the graphs give flat;
            (elements,) of several outputs together.
        preprocessing: from a photograph to the model's input.
        preprocessing_source: where the preprocessing came from, in words.
        inputs: name -> further inputs of the original, whose values are part of the graphs; most models have none.
        cut: where features end and the head begins; the deepest layer if the bundle has several.
        layers: further cuts, in the order of the data flow; most bundles have none.
        graphs: the graph files.
        gradient: the derivative of the head; None if the bundle has none.
        no_gradient: why it has none, as part of a sentence; None if it has one.
        precision: "float32", or "int8" for a quantized graph; image, features and logits are float32 in both.
        variants: "float16", "int8", "qnn" -> the scorers in it; features, head and clean logits are those of `graphs`.
        opset: version of the ONNX operator set.
        parity: what was measured at export.
        probe: what it was measured on; None in bundles of schema 1.
        files: every file of the bundle except bundle.json itself.
        versions: of the tools that made the bundle.
        output_parts: the outputs of the original where there are several, in the order in which the graphs give them.
    """

    schema: int
    model: ModelRecord
    labels: tuple[str, ...]
    activation: Activation
    output_shape: tuple[int, ...]
    preprocessing: Preprocessing
    preprocessing_source: str
    inputs: dict[str, FixedInput]
    cut: Cut
    layers: tuple[Cut, ...]
    graphs: Graphs
    gradient: Gradient | None
    no_gradient: str | None
    precision: Literal["float32", "int8"]
    variants: dict[str, Variant]
    opset: int
    parity: Parity
    probe: Probe | None
    files: dict[str, FileRecord]
    versions: dict[str, str]
    output_parts: tuple[OutputPart, ...] = dataclasses.field(default=(), metadata=OPTIONAL)

    def __repr__(self) -> str:
        return f"<Manifest of {self.in_words}>"

    @property
    def in_words(self) -> str:
        """The model in a few words: "resnet18: 1000 classes (tench, goldfish, ...), softmax, 224 x 224 pixels"."""
        some = ", ".join(self.labels[:_SHOWN]) + (", ..." if len(self.labels) > _SHOWN else "")
        size = f"{self.preprocessing.height} x {self.preprocessing.width} pixels"
        if self.preprocessing.channels != 3:
            size += f" in {counted(self.preprocessing.channels, 'channel')}"
        if self.has_classes:
            kind = "outputs" if self.activation == "identity" else "classes"
            what = f"{self.outputs} {kind} ({shortened(some, _LONGEST_LIST)}), {self.activation}"
        elif self.output_parts:
            what = f"outputs {shortened(', '.join(part.name for part in self.output_parts), _LONGEST_LIST)}"
        else:
            what = f"{list(self.output_shape)} outputs, {self.activation}"
        return printable(f"{self.model.name}: {what}, {size}")

    @property
    def outputs(self) -> int:
        """How many numbers the graphs give for one image: the classes, or the elements of a tensor."""
        return math.prod(self.output_shape)

    def outputs_by_name(self, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The numbers of an image, [outputs], as the outputs of the original by name; {"output": ...} of one."""
        parts = self.output_parts or (OutputPart("output", self.output_shape),)
        flat, ends = values.reshape(-1), itertools.accumulate(part.size for part in parts)
        return {
            part.name: flat[end - part.size : end].reshape(part.shape) for part, end in zip(parts, ends, strict=True)
        }

    @property
    def has_classes(self) -> bool:
        """Whether every output has a label, so that it can be a target; not of tensors, nor of several outputs."""
        return bool(self.labels)

    @property
    def score_width(self) -> int:
        """How many numbers a row of the scorers' input `score` has; 0 where they have none."""
        single = SCORE_TERMS[3:]
        return sum(1 if term in single else self.outputs for term in self.graphs.score_terms)

    @property
    def cuts(self) -> dict[str, Cut]:
        """All cuts by their output of the features graph: `features`, then `features_1`, ... of `layers`."""
        return {"features": self.cut} | {f"features_{i}": cut for i, cut in enumerate(self.layers, 1)}

    def to_json(self) -> str:
        """Encode `bundle.json`, without what may be missing and has its default. The same manifest gives the same text.

        Raises:
            NotFiniteError: one of its numbers is infinite or not a number, which JSON cannot hold.
        """
        return encode_json(dataclasses.asdict(self, dict_factory=_written)) + "\n"


def _written(entries: list[tuple[str, object]]) -> dict[str, object]:
    """The entries of an object without optional ones that say nothing."""
    return {name: value for name, value in entries if name not in _OPTIONAL or value not in (None, ())}


_OPTIONAL: Final = frozenset(
    field.name
    for kind in (ModelRecord, Graphs, Manifest)
    for field in dataclasses.fields(kind)
    if field.metadata.get("optional")
)


def precision_by_name(name: str) -> Precision:
    """Return the full name of a precision: "float32" or "fp32", "float16" or "fp16", "int8", "qnn", in any case.

    Raises:
        OptionError: no precision of this name.

    Example:
        >>> precision_by_name("FP16")
        'float16'
    """
    known = {**_SHORT_PRECISIONS, **{full: full for full in get_args(Precision)}}
    found: Precision | None = known.get(name.strip().lower()) if isinstance(name, str) else None
    if found is None:
        raise OptionError(f"precision {name!r}: accepted is fp32 (float32), fp16 (float16), int8 or qnn")
    return found


def graph_files(manifest: Manifest, *precisions: str) -> list[str]:
    """List the file names of the features, the head or classifier, the gradient, and the scorers, each once."""
    graphs, variants = manifest.graphs, manifest.variants
    gradient = None if manifest.gradient is None else manifest.gradient.graph
    scorers = [variants[name].scorers if name in variants else graphs.scorers for name in precisions]
    names = [graphs.features, graphs.head, graphs.classifier, gradient]
    names += [file for kinds in scorers for file in kinds.values()]
    return [*dict.fromkeys(name for name in names if name is not None)]
