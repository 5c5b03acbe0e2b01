"""The content of bundle.json as dataclasses: model, cut, graphs, parity, variants, files.

`bundle.schema.json`, beside this module, is the same schema for other readers (JSON Schema, draft 2020-12).
"""

import dataclasses
from typing import Final, Literal, get_args

from ortcam.errors import OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam.support.strict_json import encode_json
from ortcam.support.terminal import printable, shortened

__all__ = [
    "LARGEST_MANIFEST",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Activation",
    "Cut",
    "Fidelity",
    "FileRecord",
    "Graphs",
    "Likeness",
    "Manifest",
    "ModelRecord",
    "Parity",
    "Precision",
    "Probe",
    "Variant",
    "graph_files",
    "precision_by_name",
]

SCHEMA_VERSION: Final = 3
MANIFEST_NAME: Final = "bundle.json"

LARGEST_MANIFEST: Final = 2**23  # bytes; a hundred thousand labels of 80 letters
_SHOWN: Final = 3  # labels in a representation
_LONGEST_LIST: Final = 60  # characters of them

Activation = Literal["softmax", "sigmoid"]

# What graphs compute in.
Precision = Literal["float32", "float16", "int8"]
_SHORT_PRECISIONS: Final[dict[str, Precision]] = {"fp32": "float32", "fp16": "float16"}


@dataclasses.dataclass(frozen=True)
class ModelRecord:
    """Which classifier this is and where its weights came from.

    Attributes:
        name: torchvision name, `package.module:callable`, or the stem of the `.onnx` file.
        source: "torchvision", "torch" or "onnx".
        weights: name of the torchvision weights, of the checkpoint file, or None for random weights.
        weights_sha256: SHA-256 of the checkpoint file or of the `.onnx` file, if there is one.
    """

    name: str
    source: Literal["torchvision", "torch", "onnx"]
    weights: str | None
    weights_sha256: str | None


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
        features: image [N,3,H,W] -> features.
        head: features -> logits [N,classes], if every path passes the cut.
        classifier: image [N,3,H,W] -> logits [N,classes], if the cut lies inside a branch. Other paths then go around
            the cut, so no head is a function of the features alone.
        scorers: mask kind ("linear", "noise", or a gate) -> scorer graph.
    """

    features: str
    head: str | None
    classifier: str | None
    scorers: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Parity:
    """The check made at export: the graphs against the model that they came from.

    Attributes:
        reference: what the graphs were compared with.
        inputs: number of probe images.
        logits: max |graphs(x) - model(x)| / max |model(x)|, graphs(x) = head(features(x)) or classifier(x).
        scorer: the same for the masked logits of the scorer against graphs(mask * x).
        tolerance: bound for the logits.
        scorer_tolerance: bound for the scorers. It is wider for a graph of 8-bit integers, because a masked pixel that
            falls between two of them may be rounded either way.
    """

    reference: str
    inputs: int
    logits: float
    scorer: float
    tolerance: float
    scorer_tolerance: float


@dataclasses.dataclass(frozen=True)
class Probe:
    """File names of the images on which parity was measured, so that it can be measured again where the bundle is used.

    Attributes:
        images: uint8 [N,H,W,3], RGB images at the size of the model's input.
        logits: float32 [N,classes], given by the original model.
    """

    images: str
    logits: str


@dataclasses.dataclass(frozen=True)
class Likeness:
    """How similar the maps of a variant are to those in float32, over the images measured.

    Attributes:
        pearson_mean: mean of Pearson's correlation over the pixels of the two maps.
        pearson_min: the lowest of them.
        spearman_mean: mean of Spearman's rank correlation over the pixels of the two maps.
        spearman_min: the lowest of them.
    """

    pearson_mean: float
    pearson_min: float
    spearman_mean: float
    spearman_min: float


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """How a lower precision changes explanations, measured at export against float32.

    Attributes:
        images: number of images.
        held_out: whether they were kept out of calibration.
        channels: the most channels scored per map, those of the highest energy.
        top1: share of the passes, clean and masked, that have the same most probable class as in float32.
        maps: method -> similarity of its maps, for the most probable class of the clean image.
    """

    images: int
    held_out: bool
    channels: int
    top1: float
    maps: dict[str, Likeness]


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
        labels: one name per class, in the order of the logits.
        activation: from logits to probabilities: "softmax" over the classes, or the "sigmoid" of each.
        preprocessing: from an RGB photograph to the model's input.
        preprocessing_source: where the preprocessing came from, in words.
        cut: where features end and the head begins.
        graphs: the graph files.
        precision: "float32", or "int8" for a quantized graph; image, features and logits are float32 in both.
        variants: "float16" or "int8" -> the scorers in it; features, head and clean logits are those of `graphs`.
        opset: version of the ONNX operator set.
        parity: what was measured at export.
        probe: what it was measured on; None in bundles of schema 1.
        files: every file of the bundle except bundle.json itself.
        versions: of the tools that made the bundle.
    """

    schema: int
    model: ModelRecord
    labels: tuple[str, ...]
    activation: Activation
    preprocessing: Preprocessing
    preprocessing_source: str
    cut: Cut
    graphs: Graphs
    precision: Literal["float32", "int8"]
    variants: dict[str, Variant]
    opset: int
    parity: Parity
    probe: Probe | None
    files: dict[str, FileRecord]
    versions: dict[str, str]

    def __repr__(self) -> str:
        return f"<Manifest of {self.in_words}>"

    @property
    def in_words(self) -> str:
        """The model in a few words: "resnet18: 1000 classes (tench, goldfish, ...), softmax, 224 x 224 pixels"."""
        some = ", ".join(self.labels[:_SHOWN]) + (", ..." if len(self.labels) > _SHOWN else "")
        size = f"{self.preprocessing.height} x {self.preprocessing.width} pixels"
        text = f"{self.model.name}: {len(self.labels)} classes ({shortened(some, _LONGEST_LIST)}), {self.activation}"
        return printable(f"{text}, {size}")

    def to_json(self) -> str:
        """Encode `bundle.json`. The same manifest always gives the same text.

        Raises:
            NotFiniteError: one of its numbers is infinite or not a number, which JSON cannot hold.
        """
        return encode_json(dataclasses.asdict(self)) + "\n"


def precision_by_name(name: str) -> Precision:
    """Return the full name of a precision: "float32" or "fp32", "float16" or "fp16", "int8", in any case.

    Raises:
        OptionError: no precision of this name.

    Example:
        >>> precision_by_name("FP16")
        'float16'
    """
    known = {**_SHORT_PRECISIONS, **{full: full for full in get_args(Precision)}}
    found: Precision | None = known.get(name.strip().lower()) if isinstance(name, str) else None
    if found is None:
        raise OptionError(f"precision {name!r}: accepted is fp32 (float32), fp16 (float16) or int8")
    return found


def graph_files(manifest: Manifest, *precisions: str) -> list[str]:
    """List the file names of the features, the head or classifier, and the scorers, each once."""
    graphs, variants = manifest.graphs, manifest.variants
    scorers = [variants[name].scorers if name in variants else graphs.scorers for name in precisions]
    names = [graphs.features, graphs.head, graphs.classifier, *(file for kinds in scorers for file in kinds.values())]
    return [*dict.fromkeys(name for name in names if name is not None)]
