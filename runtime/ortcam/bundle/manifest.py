"""The bundle: the folder that an export writes and the runtime reads, its schema, and the checks before use.

`bundle.schema.json`, beside this module, is the same schema for other readers (JSON Schema, draft 2020-12).
"""

import dataclasses
import functools
import hashlib
import os
import re
import reprlib
import stat
import weakref
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, TypeVar, get_args

from ortcam.bundle.graph_contents import GraphReader
from ortcam.bundle.migration import migrate
from ortcam.bundle.plausibility import check_graphs, check_manifest, check_weights
from ortcam.errors import BundleError, OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam.support.strict_json import SchemaError, decode, encode_json, parse_json
from ortcam.support.terminal import printable, shortened

__all__ = [
    "GATES",
    "LARGEST_MANIFEST",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Activation",
    "Bundle",
    "Content",
    "Cut",
    "Fidelity",
    "FileRecord",
    "Graph",
    "Graphs",
    "Likeness",
    "Manifest",
    "ModelRecord",
    "Parity",
    "Precision",
    "Probe",
    "Variant",
    "file_sha256",
    "open_bundle",
    "precision_by_name",
    "read_bundle",
]

SCHEMA_VERSION: Final = 3
MANIFEST_NAME: Final = "bundle.json"

LARGEST_MANIFEST: Final = 2**23  # bytes; a hundred thousand labels of 80 letters
_LONGEST_NAME: Final = 255  # bytes, as file systems have it
_SHOWN: Final = 3  # labels in a representation
_LONGEST_LIST: Final = 60  # characters of them
# What folders, drives and streams are told apart by, what no file system takes, and what ONNX Runtime's names for
# tensors in memory have.
_NOT_IN_NAMES: Final = re.compile(r"[/\\:*\x00-\x1f\x7f]|_ORT_MEM_ADDR_")

# The gates of ScoreCAM++ that have a scorer graph of their own; "minmax" is the plain scorer on normalised maps.
GATES: Final = ("tanh", "sigmoid", "sigmoid-relu", "relu", "mish", "swish", "softsign")

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
        images: uint8 [N,H,W,3], RGB pictures at the size of the model's input.
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


@dataclasses.dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Content:
    """The verified bytes of a file, and their SHA-256."""

    data: bytes = dataclasses.field(repr=False)
    sha256: str


@dataclasses.dataclass(frozen=True)
class Graph:
    """A verified graph of a bundle with its weights. Nothing of it is read from a disk again.

    Attributes:
        name: of its file, for messages.
        model: the bytes of its file.
        files: name -> bytes of the files that hold its weights.
    """

    name: str
    model: Content
    files: dict[str, Content]


# SHA-256 -> what a file of this hash holds: explainers of equal weights share them, and the last one lets them go.
_contents: "weakref.WeakValueDictionary[str, Content]" = weakref.WeakValueDictionary()


@dataclasses.dataclass(frozen=True, repr=False)
class Bundle:
    """A bundle whose files have been checked.

    Attributes:
        path: of the folder; absolute and without links, so that it stays the folder that was checked.
        manifest: the content of its bundle.json, migrated to the current schema.
        schema: that of bundle.json as it was written.
        sha256: SHA-256 of bundle.json, and through the hashes in it of the whole bundle.
        weights: name of a graph -> names of the files that hold its weights.
    """

    path: Path
    manifest: Manifest
    schema: int
    sha256: str
    weights: Mapping[str, tuple[str, ...]]

    def __repr__(self) -> str:
        return f"<Bundle {printable(self.path.name)} of {self.manifest.in_words}>"

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists. The file may have changed since it was checked."""
        return self.path / name

    def content(self, name: str) -> Content:
        """Content of a file that the manifest lists: from memory if it is held (`hold`), else read and verified again.

        Raises:
            BundleError: the file is missing, or it has changed since the bundle was read.
        """
        record = self.manifest.files[name]
        held = _contents.get(record.sha256)
        if held is not None:
            return held
        try:
            return _read_file(self.path, name, record)
        except BundleError as error:
            raise BundleError(f"the bundle has changed since it was loaded: {error}") from None

    def graph(self, name: str) -> Graph:
        """Read a graph with its weights, verified.

        Raises:
            BundleError: a file is missing, or it has changed since the bundle was read.
        """
        return Graph(name, self.content(name), {file: self.content(file) for file in self.weights[name]})

    def hold(self, precision: str | None = None) -> dict[str, Content]:
        """Hold what the graphs of a precision need. While the result exists, `graph` and `content` read no file again.

        Args:
            precision: "float32", "float16" or "int8"; None takes that of the bundle's own graphs.

        Raises:
            OptionError: no precision of this name.
            BundleError: the bundle has no scorers in this precision, or a file is missing or has changed.
        """
        return self._hold(self.check_precision(precision), self.content)

    def _hold(self, precision: str, read: Callable[[str], Content]) -> dict[str, Content]:
        graphs = _graphs_of(self.manifest, precision)
        weights = [file for graph in graphs for file in self.weights[graph]]
        return {name: read(name) for name in dict.fromkeys([*graphs, *weights])}

    def copy_to(self, folder: Path) -> "Bundle":
        """Copy the verified files into an existing folder, and return the bundle there.

        Raises:
            BundleError: a file is missing, or it has changed since the bundle was read.
            OSError: the folder cannot be written to.
        """
        for name in self.manifest.files:
            (folder / name).write_bytes(self.content(name).data)
        (folder / MANIFEST_NAME).write_text(self.manifest.to_json(), "utf-8")
        return dataclasses.replace(self, path=folder.resolve())

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions of the scorers; that of the bundle's own graphs comes first."""
        return (self.manifest.precision, *self.manifest.variants)

    def check_precision(self, name: str | None) -> str:
        """Return the full name of a precision; for None, that of the bundle's own graphs.

        Raises:
            OptionError: no precision of this name.
            BundleError: the bundle has no scorers in it.
        """
        precision = self.manifest.precision if name is None else precision_by_name(name)
        if precision not in self.precisions:
            raise BundleError(
                f"{self.path}: no scorers in {precision} in this bundle; it has {', '.join(self.precisions)} "
                "(`ortcam export --precision` makes others)"
            )
        return precision

    def scorer(self, kind: str, precision: str | None = None) -> Path:
        """Path of the scorer for a kind of mask.

        Args:
            kind: of mask.
            precision: "float32", "float16" or "int8"; None takes that of the bundle's own graphs.

        Raises:
            OptionError: no precision of this name.
            BundleError: the bundle has no such scorer.
        """
        precision = self.check_precision(precision)
        manifest = self.manifest
        own = precision == manifest.precision
        scorers = manifest.graphs.scorers if own else manifest.variants[precision].scorers
        if kind not in scorers:
            raise BundleError(f"{self.path}: no scorer for {kind!r} in this bundle; it has {', '.join(scorers)}")
        return self.file(scorers[kind])


_P = ParamSpec("_P")
_Read = TypeVar("_Read")
_TRIES: Final = 10  # more often nobody replaces a bundle while it is read


def _again_if_replaced(read: Callable[_P, _Read]) -> Callable[_P, _Read]:
    """Read a bundle again if another one has taken its place meanwhile: the result is the old or the new one."""

    @functools.wraps(read)
    def again(*args: _P.args, **kwargs: _P.kwargs) -> _Read:
        path = args[0] if args else kwargs.get("path")
        for _ in range(_TRIES):
            before = _stamp(path)
            try:
                return read(*args, **kwargs)
            except BundleError:
                if _stamp(path) == before:
                    raise
        return read(*args, **kwargs)

    return again


def _stamp(path: Any) -> tuple[int, ...] | None:
    """Tell whether the bundle.json in a folder is still the same file."""
    try:
        found = (Path(os.fsdecode(path)) / MANIFEST_NAME).stat()
    except (OSError, ValueError, TypeError, RuntimeError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


@_again_if_replaced
def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle: schema, names, sizes, hashes and graphs, before ONNX Runtime touches anything of it.

    Files may be links, as in a cache of models; their content is checked. To deploy a new version, write it into a
    folder of its own, then switch a link or rename the folder. Never write into files that a process may be reading. A
    process that has loaded the old version keeps it.

    Raises:
        BundleError: not a bundle, a newer schema, a missing, truncated or altered file, a name that leaves the folder,
            a manifest beyond its bounds, or a graph that is not what the manifest says or could do harm (SECURITY.md).
    """
    bundle, _ = _read_graphs(_read_manifest(path), ())
    for name, record in bundle.manifest.files.items():
        if name not in bundle.weights:  # the graphs have been checked
            _check_file(bundle.path, name, record)
    return bundle


@_again_if_replaced
def open_bundle(path: str | os.PathLike[str], precision: str | None = None) -> tuple[Bundle, dict[str, Content]]:
    """Read a bundle, and hold what the graphs of a precision need. Each file is read once, and kept as it was checked.

    Args:
        path: of the folder.
        precision: "float32", "float16" or "int8"; None takes that of the bundle's own graphs.

    Returns:
        The bundle and what `Bundle.hold` gives.

    Raises:
        OptionError: no precision of this name.
        BundleError: as `read_bundle`, or the bundle has no scorers in this precision.
    """
    bundle = _read_manifest(path)
    files, precision = bundle.manifest.files, bundle.check_precision(precision)
    bundle, graphs = _read_graphs(bundle, _graphs_of(bundle.manifest, precision))
    # Not `content`, which looks at no file whose hash is known: what lies on the disk is to be checked.
    held = bundle._hold(precision, lambda name: graphs.get(name) or _read_file(bundle.path, name, files[name]))
    for name, record in files.items():
        if name not in held and name not in bundle.weights:
            _check_file(bundle.path, name, record)
    return bundle, held


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


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: str | os.PathLike[str]) -> Bundle:
    """Read bundle.json, before any other file is opened."""
    try:
        folder = Path(os.fsdecode(path))
    except TypeError:
        raise BundleError(f"bundle {path!r}: accepted is the path of a folder") from None
    try:
        resolved = folder.resolve()
        mode = (resolved / MANIFEST_NAME).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would wait for a writer
            raise BundleError(f"{folder / MANIFEST_NAME}: is no regular file")
        with (resolved / MANIFEST_NAME).open("rb") as file:
            text = file.read(LARGEST_MANIFEST + 1)
    except FileNotFoundError:
        what = "it has no bundle.json" if folder.is_dir() else "there is no such folder"
        raise BundleError(f"{folder}: not an ortcam bundle, {what}; `ortcam export` makes one") from None
    except NotADirectoryError:
        raise BundleError(f"{folder}: not an ortcam bundle but a file; a bundle is a folder with bundle.json") from None
    except (OSError, RuntimeError) as error:  # of links in a circle the latter, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise BundleError(f"{folder / MANIFEST_NAME}: cannot be read: {reason}") from None
    except ValueError as error:  # a null character
        raise BundleError(f"bundle {str(folder)!r}: cannot be read: {error}") from None
    if len(text) > LARGEST_MANIFEST:
        raise BundleError(f"{folder / MANIFEST_NAME}: longer than {LARGEST_MANIFEST} bytes, the most that are accepted")
    schema, manifest = _parse(text, folder / MANIFEST_NAME)
    _check_names(manifest, folder)
    try:
        check_manifest(manifest)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from None
    return Bundle(resolved, manifest, schema, hashlib.sha256(text).hexdigest(), {})


def _read_graphs(bundle: Bundle, keep: Collection[str]) -> tuple[Bundle, dict[str, Content]]:
    """Check all graphs of a bundle before anything else reads them.

    Args:
        bundle: whose manifest has been read.
        keep: names of the graphs whose bytes are needed.

    Returns:
        The bundle, with the weights that each graph names, and the bytes of the graphs in `keep`.

    Raises:
        BundleError: a graph is missing, altered, not what the manifest says, or could do harm; see `GraphReader`.
    """
    manifest, kept, contents = bundle.manifest, {}, {}
    reader = GraphReader({name: record.size for name, record in manifest.files.items()})
    for name in _graphs_of(manifest, *manifest.variants, manifest.precision):
        content = _read_file(bundle.path, name, manifest.files[name])
        contents[name] = reader.read(content.data, bundle.path / name)
        if name in keep:
            kept[name] = content
    try:
        check_graphs(manifest, contents)
        check_weights(manifest, contents)
    except BundleError as error:
        raise BundleError(f"{bundle.path}: its graphs do not fit its bundle.json: {error}") from None
    return dataclasses.replace(bundle, weights={name: found.files for name, found in contents.items()}), kept


def _graphs_of(manifest: Manifest, *precisions: str) -> list[str]:
    """List the file names of the features, the head or classifier, and the scorers, each once."""
    graphs, variants = manifest.graphs, manifest.variants
    scorers = [variants[name].scorers if name in variants else graphs.scorers for name in precisions]
    names = [graphs.features, graphs.head, graphs.classifier, *(file for kinds in scorers for file in kinds.values())]
    return [*dict.fromkeys(name for name in names if name is not None)]


def _parse(text: bytes, path: Path) -> tuple[int, Manifest]:
    """Parse bundle.json: the schema that it was written in, and the manifest in the current schema."""
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
    cut = manifest.cut
    if min(cut.channels, cut.height, cut.width) < 1 or cut.prefix_tokens < 0 or not manifest.labels:
        raise BundleError(f"{path}: impossible cut or labels: {reprlib.repr(cut)}, {len(manifest.labels)} labels")
    graphs = manifest.graphs
    if (graphs.head is None) == (graphs.classifier is None):
        head, classifier = reprlib.repr(graphs.head), reprlib.repr(graphs.classifier)
        raise BundleError(f"{path}: head is {head} and classifier {classifier}; accepted is exactly one of the two")
    accepted = [name for name in get_args(Precision) if name not in ("float32", manifest.precision)]
    for name, variant in manifest.variants.items():
        if name not in accepted:
            raise BundleError(
                f"{path}: a variant in {reprlib.repr(name)}; accepted beside {manifest.precision}: {accepted}"
            )
        if set(variant.scorers) != set(graphs.scorers):
            found = reprlib.repr([*variant.scorers])
            raise BundleError(f"{path}: the scorers in {name} are not those of the other graphs: {found}")
    return schema, manifest


def _check_names(manifest: Manifest, folder: Path) -> None:
    for name in manifest.files:
        if name in ("", ".", "..", MANIFEST_NAME) or _NOT_IN_NAMES.search(name) or len(name.encode()) > _LONGEST_NAME:
            raise BundleError(
                f"{folder}: the file name {reprlib.repr(name)} leaves the bundle's folder; a plain name is accepted"
            )
    graphs, probe = manifest.graphs, manifest.probe
    named = [("graph", name) for name in (graphs.features, graphs.head, graphs.classifier, *graphs.scorers.values())]
    named += [("graph", name) for variant in manifest.variants.values() for name in variant.scorers.values()]
    if probe is not None:
        named += [("probe", probe.images), ("probe", probe.logits)]
    for what, file in named:
        if file is not None and file not in manifest.files:
            raise BundleError(f"{folder}: the {what} {reprlib.repr(file)} is not among the bundle's files")


def _read_file(folder: Path, name: str, record: FileRecord) -> Content:
    """Read and verify a whole file. Equal contents are kept in memory once."""
    path = _regular(folder / name)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _check_size(path, size, record)
            data = file.read(record.size + 1)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    _check_size(path, len(data), record)
    _check_hash(path, hashlib.sha256(data).hexdigest(), record)
    return _contents.setdefault(record.sha256, Content(data, record.sha256))


def _check_file(folder: Path, name: str, record: FileRecord) -> None:
    """Verify a file without keeping it in memory."""
    path = _regular(folder / name)
    try:
        _check_size(path, path.stat().st_size, record)
        digest = file_sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    _check_hash(path, digest, record)


def _regular(path: Path) -> Path:
    try:
        there = path.is_file()
    except OSError as error:  # a name too long for this file system
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    if not there:
        raise BundleError(f"{path}: missing from the bundle; copy or export it again")
    return path


def _check_size(path: Path, size: int, record: FileRecord) -> None:
    if size != record.size:
        what = "truncated" if size < record.size else "altered"
        raise BundleError(f"{path}: {what}, {size} bytes instead of {record.size}; copy or export the bundle again")


def _check_hash(path: Path, digest: str, record: FileRecord) -> None:
    if digest != record.sha256:
        raise BundleError(
            f"{path}: altered, its SHA-256 is not the one in bundle.json; copy or export the bundle again"
        )
