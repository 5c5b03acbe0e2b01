"""The bundle: the folder that an export writes and the runtime reads, its schema, and the checks before use.

`bundle.schema.json`, beside this module, is the same schema for other readers (JSON Schema, draft 2020-12).
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Final, Literal

from ortcam.errors import BundleError, OptionError
from ortcam.migration import migrate
from ortcam.preprocessing import Preprocessing
from ortcam.schema import SchemaError, decode

__all__ = [
    "GATES",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Activation",
    "Bundle",
    "Cut",
    "FileRecord",
    "Graphs",
    "Manifest",
    "ModelRecord",
    "Parity",
    "Probe",
    "file_sha256",
    "read_bundle",
]

SCHEMA_VERSION: Final = 2
MANIFEST_NAME: Final = "bundle.json"

# The gates of ScoreCAM++ that have a scorer graph of their own; "minmax" is the plain scorer on normalised maps.
GATES: Final = ("tanh", "sigmoid", "sigmoid-relu", "relu", "mish", "swish", "softsign")


Activation = Literal["softmax", "sigmoid"]


@dataclasses.dataclass(frozen=True)
class ModelRecord:
    """Which classifier this is and where its weights came from.

    Attributes:
        name: torchvision name, `package.module:callable`, or the stem of the `.onnx` file.
        source: "torchvision", "torch" or "onnx".
        weights: name of the torchvision weights, of the checkpoint file, or None for random weights.
        weights_sha256: SHA-256 of the checkpoint file or of the `.onnx` file, where there is one.
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
        module: path of the module that makes it, where the graph still knows.
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


@dataclasses.dataclass(frozen=True)
class Graphs:
    """File names of the graphs; of `head` and `classifier` exactly one is there.

    Attributes:
        features: image [N,3,H,W] -> features.
        head: features -> logits [N,classes], where every path passes the cut.
        classifier: image [N,3,H,W] -> logits [N,classes], where the cut lies inside a branch: what goes around it
            leaves no head that is a function of the features alone.
        scorers: mask kind ("linear", "noise", or a gate) -> scorer graph.
    """

    features: str
    head: str | None
    classifier: str | None
    scorers: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Parity:
    """The check made at export: the graphs against the model they came from.

    Attributes:
        reference: what the graphs were compared with.
        inputs: number of probe images.
        logits: max |graphs(x) - model(x)| / max |model(x)|, graphs(x) = head(features(x)) or classifier(x).
        scorer: the same for the masked logits of the scorer against graphs(mask * x).
        tolerance: what the logits had to stay within.
        scorer_tolerance: what the scorers had to stay within; more for a graph of 8-bit integers, where a masked pixel
            that falls between two of them may go either way.
    """

    reference: str
    inputs: int
    logits: float
    scorer: float
    tolerance: float
    scorer_tolerance: float


@dataclasses.dataclass(frozen=True)
class Probe:
    """File names of what parity was measured on, so that it can be measured again where the bundle is used.

    Attributes:
        images: uint8 [N,H,W,3], RGB pictures at the size of the model's input.
        logits: float32 [N,classes], those that the original model gave for them.
    """

    images: str
    logits: str


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file of the bundle."""

    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `bundle.json` holds.

    Attributes:
        schema: version of this schema; a reader refuses a newer one and brings an older one up to its own.
        model: the classifier.
        labels: one name a class, in the order of the logits.
        activation: from logits to probabilities: "softmax" over the classes, or the "sigmoid" of each.
        preprocessing: from an RGB photograph to the model's input.
        preprocessing_source: where the preprocessing came from, in words.
        cut: where features end and the head begins.
        graphs: the graph files.
        precision: "float32", or "int8" for a quantized graph; image, features and logits are float32 in both.
        opset: version of the ONNX operator set.
        parity: what was measured at export.
        probe: what it was measured on; None in bundles of schema 1.
        files: every file of the bundle but bundle.json itself.
        versions: tools that made the bundle.
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
    opset: int
    parity: Parity
    probe: Probe | None
    files: dict[str, FileRecord]
    versions: dict[str, str]

    def to_json(self) -> str:
        """The text of `bundle.json`; the same manifest always gives the same text."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked.

    Attributes:
        path: the folder.
        manifest: what its bundle.json says, brought up to today's schema.
        schema: that of bundle.json as it was written.
        sha256: SHA-256 of bundle.json, and through the hashes in it of the whole bundle.
    """

    path: Path
    manifest: Manifest
    schema: int
    sha256: str

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists."""
        return self.path / name

    def scorer(self, kind: str) -> Path:
        """Path of the scorer for a kind of mask.

        Raises:
            BundleError: the bundle has no such scorer.
        """
        scorers = self.manifest.graphs.scorers
        if kind not in scorers:
            raise BundleError(f"{self.path}: no scorer for {kind!r} in this bundle; it has {', '.join(scorers)}")
        return self.file(scorers[kind])


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle: schema, names, sizes and hashes, before anything else touches its graphs.

    Raises:
        BundleError: not a bundle, a newer schema, a missing, truncated or altered file, a name that leaves the folder.
    """
    folder = Path(path)
    text = _read_manifest(folder)
    schema, manifest = _parse(text, folder / MANIFEST_NAME)
    _check_names(manifest, folder)
    for name, record in manifest.files.items():
        _check_file(folder, name, record)
    return Bundle(folder, manifest, schema, hashlib.sha256(text).hexdigest())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST_NAME).read_bytes()
    except FileNotFoundError:
        what = "it has no bundle.json" if folder.is_dir() else "there is no such folder"
        raise BundleError(f"{folder}: not an ortcam bundle, {what}; `ortcam export` makes one") from None
    except NotADirectoryError:
        raise BundleError(f"{folder}: not an ortcam bundle but a file; a bundle is a folder with bundle.json") from None
    except OSError as error:
        raise BundleError(f"{folder / MANIFEST_NAME}: cannot be read: {error.strerror}") from None


def _parse(text: bytes, path: Path) -> tuple[int, Manifest]:
    """The schema that the text is written in, and the manifest in today's."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}") from None
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if type(schema) is not int or schema < 1:
        raise BundleError(f"{path}: not the manifest of an ortcam bundle (schema={schema!r})")
    if schema > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema {schema} is newer than this ortcam reads ({SCHEMA_VERSION}); upgrade it or export again"
        )
    try:
        manifest = decode(Manifest, migrate(raw), "bundle.json")
    except (SchemaError, OptionError) as error:
        raise BundleError(f"{path}: {error}") from None
    cut = manifest.cut
    if min(cut.channels, cut.height, cut.width) < 1 or cut.prefix_tokens < 0 or not manifest.labels:
        raise BundleError(f"{path}: impossible cut or labels: {cut}, {len(manifest.labels)} labels")
    graphs = manifest.graphs
    if (graphs.head is None) == (graphs.classifier is None):
        raise BundleError(
            f"{path}: head is {graphs.head!r} and classifier {graphs.classifier!r}; accepted is exactly one of the two"
        )
    return schema, manifest


def _check_names(manifest: Manifest, folder: Path) -> None:
    for name in manifest.files:
        if name in ("", ".", "..", MANIFEST_NAME) or "/" in name or "\\" in name or ":" in name or "\0" in name:
            raise BundleError(f"{folder}: the file name {name!r} leaves the bundle's folder; a plain name is accepted")
    graphs, probe = manifest.graphs, manifest.probe
    named = [("graph", name) for name in (graphs.features, graphs.head, graphs.classifier, *graphs.scorers.values())]
    if probe is not None:
        named += [("probe", probe.images), ("probe", probe.logits)]
    for what, file in named:
        if file is not None and file not in manifest.files:
            raise BundleError(f"{folder}: the {what} {file!r} is not among the bundle's files")


def _check_file(folder: Path, name: str, record: FileRecord) -> None:
    path = folder / name
    if path.is_symlink():
        raise BundleError(f"{path}: a link, which may leave the bundle's folder; a plain file is accepted")
    if not path.is_file():
        raise BundleError(f"{path}: missing from the bundle; copy or export it again")
    try:
        size = path.stat().st_size
        if size != record.size:
            what = "truncated" if size < record.size else "altered"
            raise BundleError(f"{path}: {what}, {size} bytes instead of {record.size}; copy or export the bundle again")
        digest = file_sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    if digest != record.sha256:
        raise BundleError(
            f"{path}: altered, its SHA-256 is not the one in bundle.json; copy or export the bundle again"
        )
