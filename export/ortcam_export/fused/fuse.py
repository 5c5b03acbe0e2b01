"""One file that explains: a bundle and a method fused into an ONNX model, checked against the runtime, and written."""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from ortcam._version import __version__
from ortcam.bundle import Bundle, file_sha256, read_bundle
from ortcam.engine.features import to_probabilities
from ortcam.engine.providers import resolve_providers
from ortcam.engine.session import SessionOptions
from ortcam.explainer import Explainer
from ortcam.methods import METHODS, Plan, Settings, resolve_method
from ortcam.parity import read_probe
from ortcam.scoring.limits import Limits
from ortcam.support.files import alone_in, move_folder, sync
from ortcam.support.ranges import CHUNK, TOP_K
from ortcam.support.strict_json import encode_json
from ortcam.support.unfinished import clear, settle_later, workspace
from ortcam_export.errors import ExportError, first_line
from ortcam_export.fused.explainer_graph import Recipe, build_explainer
from ortcam_export.fused.sharing import share_in_file, share_in_function
from ortcam_export.fused.triton import CONFIGURATION, MODEL_FILE, check_name, configuration, plain_name
from ortcam_export.graphs.weights import WeightsFile, weight_key
from ortcam_export.staging import reported

__all__ = ["DEFAULT_CHUNK", "TOLERANCE", "Fused", "fuse"]

DEFAULT_CHUNK: Final = 8
# What a fused file's map may differ from the runtime's by.
TOLERANCE: Final = 1e-4

_LARGEST: Final = (1 << 31) - (1 << 20)  # bytes of one protobuf message, less some for the nodes
_EXTERNAL_SUFFIX: Final = ".data"
GRACE: Final = 1.0  # seconds for whoever has just opened a model to open its weights, before these are removed
_HEX: Final = 8  # digits of a hash, in the name of weights beside others


@dataclasses.dataclass(frozen=True)
class Fused:
    """A file that explains.

    Attributes:
        path: of the model.
        external: of the weights beside it, or None.
        size: bytes of both.
        opset: version of the operator set.
        nodes: their number, those inside the loops included.
        inputs: name -> type and shape, in words.
        outputs: name -> type and shape, in words.
        difference: the largest of its maps from the runtime's, on the bundle's probe; None where it was not measured.
        metadata: what the file says of itself.
    """

    path: Path
    external: Path | None
    size: int
    opset: int
    nodes: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    difference: float | None
    metadata: dict[str, str]


def fuse(
    bundle: str | os.PathLike[str] | Bundle,
    output: str | os.PathLike[str] | None = None,
    *,
    triton: str | os.PathLike[str] | None = None,
    name: str | None = None,
    method: str = "scorecam++",
    budget: float | int | None = None,
    precision: str | None = None,
    top_k: int | None = None,
    runtime_targets: bool = False,
    uint8_input: bool = False,
    batch_size: int = DEFAULT_CHUNK,
    external: bool = False,
    force: bool = False,
    verify: bool = True,
    report: Callable[[str], None] | None = None,
    **options: object,
) -> Fused:
    """Write a bundle and a method as one ONNX model that explains; `fused.explainer_graph` has its interface.

    Its maps are those of `Explainer.explain` with the same settings; with a budget, those of `completion="none"`: the
    channels of the highest energy are scored and the others weigh nothing.

    Args:
        bundle: folder written by `ortcam export`.
        output: file to write, ending in `.onnx`; None where `triton` says where it goes.
        triton: folder of a model repository of Triton Inference Server; the file is written there as
            `NAME/1/model.onnx`, with its `config.pbtxt`.
        name: of the model in the repository; None makes one of the names of bundle and method.
        method: one of those that mask the image.
        budget: channels to score: a share in (0,1] of those that are not flat, or a whole number of them; None: all.
        precision: of the masked passes, where the bundle has it; None takes that of its own graphs.
        top_k: how many of the most probable classes are explained; None: 1.
        runtime_targets: whether the classes are an input instead.
        uint8_input: whether the input is an RGB picture uint8 [h,w,3] of any size, preprocessed inside the graph.
        batch_size: masked images a turn of the loop.
        external: whether the weights lie in a file of their own, `NAME.onnx.data`, or `NAME.onnx.HEX.data` where a
            model that is replaced has other weights under that name: so no model ever meets another's weights.
        force: replace a file that is there.
        verify: whether the file is run on the bundle's probe and compared with the runtime before it is written.
        report: told the stages.
        **options: of the method; see `ortcam.methods.METHODS`.

    Raises:
        ExportError: a file that is there, a method that cannot be fused, or a map that is not the runtime's; nothing is
            written.
        OptionError: a value that is not accepted.
        BundleError: the bundle cannot be trusted or read, or has no scorers in this precision.
    """
    say = report or (lambda _: None)
    settings = _settings(method, options)
    limits = Limits(budget=budget)
    _check_counts(top_k, batch_size, runtime_targets=runtime_targets)
    opened = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    classes = len(opened.manifest.labels)
    if top_k is not None and top_k > classes:
        raise ExportError(f"top_k={top_k}: accepted is a whole number from 1 to {classes}, the model's classes")
    place = _place(opened, settings, output, triton, name, external=external, force=force)
    assert settings.plan is not None  # of methods that mask the image
    recipe = Recipe(
        plan=settings.plan,
        budget=limits.budget,
        precision=opened.check_precision(precision),
        top_k=None if runtime_targets else int(top_k or 1),
        uint8_input=uint8_input,
        batch_size=int(batch_size),
        baseline=_baseline(opened, settings.plan),
    )
    say("building the graph")
    with reported(place.whole), workspace(place.whole.parent) as own:
        # Of a copy: the weights are read when the file is written, and are to be those that were verified.
        (copied := own / "bundle").mkdir()
        model = build_explainer(opened.copy_to(copied), recipe)
        model.metadata_props.update(_metadata(opened, settings, recipe))
        say("writing the file")
        folder = own / "made" if place.repository else own
        made = folder / place.file
        made.parent.mkdir(parents=True, exist_ok=True)
        _save(model, made, external=external)
        say("checking the file")
        _check_model(made, say)
        difference = None
        if verify:
            say("comparing its maps with the runtime's")
            difference = _difference(opened, settings, recipe, limits, made)
            if difference is not None and not difference <= TOLERANCE:
                raise ExportError(
                    f"the maps of the file differ from the runtime's by {difference:.1e}; accepted is {TOLERANCE:.0e}. "
                    "Nothing was written"
                )
        if place.repository:
            text = configuration(place.whole.name, model, _parameters(model))
            (folder / CONFIGURATION).write_text(text, "ascii")
        grace = 0.0
        with alone_in(place.whole.parent):
            _check_free(place, force=force)
            if place.repository:
                move_folder(folder, place.whole, own)
                weights = place.weights
            else:
                weights, has_readers = _put(made, place)
                grace = GRACE if has_readers else 0.0
        time.sleep(grace)
        return _describe(model, place, weights, difference)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the file goes: a file, or a folder of a Triton repository with the file in it."""

    whole: Path
    file: str
    external: bool
    repository: bool

    @property
    def model(self) -> Path:
        return self.whole / self.file if self.repository else self.whole

    @property
    def weights(self) -> Path | None:
        """Where the weights go, unless others are there."""
        return self.plain_weights if self.external else None

    @property
    def plain_weights(self) -> Path:
        """The name of its weights, where there are any beside it."""
        return self.model.with_name(self.model.name + _EXTERNAL_SUFFIX)


def _place(
    bundle: Bundle,
    settings: Settings,
    output: str | os.PathLike[str] | None,
    triton: str | os.PathLike[str] | None,
    name: str | None,
    *,
    external: bool,
    force: bool,
) -> _Place:
    """Where the file goes, once it is clear that it can."""
    if output is None and triton is not None:
        if name is None:
            name = plain_name(f"{bundle.path.resolve().stem}-{settings.method.name.replace('+', 'p')}")
        place = _Place(Path(triton) / check_name(name), MODEL_FILE, external, repository=True)
    elif output is not None and triton is None and name is None:
        path = Path(output)
        if path.suffix != ".onnx":
            raise ExportError(f"{path}: accepted is the name of a file that ends in .onnx")
        place = _Place(path, path.name, external, repository=False)
    else:
        raise ExportError("accepted is an output file, or the folder of a Triton repository and, with it, a name")
    folder = place.whole.parent
    if folder.resolve() == bundle.path.resolve():
        raise ExportError(f"{place.whole}: lies in the bundle, whose files are its own; name another place")
    if not folder.is_dir():
        raise ExportError(f"{place.whole}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise ExportError(f"{place.whole}: the folder {folder} cannot be written to")
    clear(folder, former=place.whole.name)
    _check_free(place, force=force)
    return place


def _check_free(place: _Place, *, force: bool) -> None:
    """Refuse to replace what is there, or what is none of a fused model's.

    Raises:
        ExportError: something is there.
    """
    beside = None if place.repository else place.weights
    for path in (place.whole, *(() if beside is None else (beside,))):
        if not (path.exists() or path.is_symlink()):
            continue
        ours = _is_ours(path) if place.repository else path.is_file()
        if not ours or path.is_symlink():
            what = f"model with version 1 and {CONFIGURATION} alone" if place.repository else "file of its own"
            raise ExportError(f"{path}: exists and is not a {what}; it is left alone, name another")
        if not force:
            raise ExportError(f"{path}: is there already; --force replaces it")


def _put(made: Path, place: _Place) -> tuple[Path | None, bool]:
    """Move a model out of its workspace, over what is there.

    Whoever opens the model finds its weights and never those of another. Where the weights of the model that is there
    have the name and not the content, the new ones get a name of their own. The weights go first, and the model
    replaces the old one in one step. Old weights go at the end of the workspace.

    Returns:
        Where the weights are, and whether somebody may have opened the old model and be about to open its weights.

    Raises:
        OSError: it cannot be moved; what was there is left as it is.
    """
    own, folder = made.parent, place.whole.parent
    written = None if place.weights is None else own / place.weights.name
    candidates = _weights_beside(place.whole)
    used = _weights_used(place.whole) if candidates else set()
    kept = None if written is None else _same(written, [path for path in candidates if path.name in used])
    weights = kept or place.weights
    if written is not None and weights is not None and kept is None and os.path.lexists(weights):
        weights = folder / f"{place.file}.{file_sha256(written)[:_HEX]}{_EXTERNAL_SUFFIX}"
    if written is not None and weights is not None and weights.name != written.name:
        written = written.rename(own / weights.name)
        _point_at(made, weights.name)
    # Of no use any more: what the old model used, what killed runs left, and under the plain name what was forced away.
    stale = [path for path in candidates if path != weights and (path.name in used or _is_left(path, place))]
    sync(made)
    new = [] if written is None or kept is not None else [written]
    settle_later(own, made.name, new=new, old=stale)
    for path in new:
        sync(path)
        path.replace(folder / path.name)
    sync(folder)
    made.replace(place.whole)
    sync(folder)
    return weights, any(path.name in used for path in stale)


def _weights_beside(model: Path) -> list[Path]:
    """The files beside a model that have the names of its weights: `NAME.onnx.data` and `NAME.onnx.HEX.data`."""
    named = re.compile(rf"{re.escape(model.name)}(\.[0-9a-f]{{{_HEX}}})?{re.escape(_EXTERNAL_SUFFIX)}")
    found = (path for path in model.parent.iterdir() if named.fullmatch(path.name))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _is_left(path: Path, place: _Place) -> bool:
    """Whether weights that the model there does not use are those of a run before, and not somebody's own file."""
    if path == place.plain_weights:
        return place.weights is not None
    try:
        return path.name == f"{place.file}.{file_sha256(path)[:_HEX]}{_EXTERNAL_SUFFIX}"
    except FileNotFoundError:  # another run has just removed it
        return False


def _weights_used(model: Path) -> set[str]:
    """The names of the files that hold the weights of a model; none where it is no model."""
    try:
        graphs = list(ir.load(model).graphs())
    except Exception:  # noqa: BLE001 - of no file, of no model: of many kinds
        return set()
    tensors = (value.const_value for graph in graphs for value in graph.initializers.values())
    return {str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}


def _same(path: Path, others: Sequence[Path]) -> Path | None:
    """The first of the other files that has the same content."""
    alike = [other for other in others if other.stat().st_size == path.stat().st_size]
    digest = file_sha256(path) if alike else None
    return next((other for other in alike if file_sha256(other) == digest), None)


def _point_at(path: Path, weights: str) -> None:
    """Rewrite a model whose file of weights got another name."""
    model = ir.load(path)
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.ExternalTensor(
                    weights,
                    tensor.offset,
                    tensor.length,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=tensor.name,
                    base_dir=path.parent,
                )
    ir.save(model, path)


def _settings(method: str, options: Mapping[str, object]) -> Settings:
    settings = resolve_method(method, options)
    if not settings.method.masks_image:
        names = ", ".join(method.name for method in METHODS if method.masks_image)
        raise ExportError(f"{settings.method.name}: masks no image and cannot be fused; accepted is {names}")
    return settings


def _check_counts(top_k: int | None, batch_size: int, *, runtime_targets: bool) -> None:
    for range_, value in ((TOP_K, top_k), (CHUNK, batch_size)):
        if value is not None:
            range_.check(value)
    if top_k is not None and runtime_targets:
        raise ExportError(f"top_k={top_k} with runtime_targets: the classes are chosen at one time or the other")


def _is_ours(folder: Path) -> bool:
    """Whether a model of a repository is one that `fuse` wrote, and nothing beside it."""
    version = Path(MODEL_FILE).parent.name
    return folder.is_dir() and {path.name for path in folder.iterdir()} == {CONFIGURATION, version}


def _baseline(bundle: Bundle, plan: Plan) -> NDArray[np.float32] | None:
    """Probabilities of the empty image, float32 [classes], where the plan subtracts them."""
    if not plan.baseline or plan.weighting != "probability":
        return None
    manifest = bundle.manifest
    empty = np.zeros((1, 3, manifest.preprocessing.height, manifest.preprocessing.width), np.float32)
    logits = Explainer(bundle, SessionOptions(resolve_providers(["CPUExecutionProvider"]))).logits(1, lambda _: empty)
    return to_probabilities(logits[0], manifest.activation)


def _metadata(bundle: Bundle, settings: Settings, recipe: Recipe) -> dict[str, str]:
    """What the file says of itself: a text as it is, everything else as JSON."""
    manifest = bundle.manifest
    values: dict[str, object] = {
        "method": settings.method.name,
        "options": settings.options,
        "budget": recipe.budget,
        "precision": recipe.precision,
        "batch_size": recipe.batch_size,
        "targets": "input" if recipe.top_k is None else recipe.top_k,
        "input": "uint8 RGB [h,w,3]" if recipe.uint8_input else "float32 [1,3,H,W], preprocessed",
        "labels": manifest.labels,
        "activation": manifest.activation,
        "preprocessing": dataclasses.asdict(manifest.preprocessing),
        "model": dataclasses.asdict(manifest.model),
        "cut": dataclasses.asdict(manifest.cut),
        "bundle_sha256": bundle.sha256,
        "versions": {"ortcam": __version__, "onnx-ir": ir.__version__, "onnxruntime": onnxruntime.__version__},
    }
    return {
        f"ortcam.{key}": value if isinstance(value, str) else encode_json(value, indent=None)
        for key, value in values.items()
    }


def _save(model: ir.Model, path: Path, *, external: bool) -> None:
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    weights = sum({weight_key(tensor): tensor.nbytes for tensor in tensors if tensor is not None}.values())
    if not external and weights > _LARGEST:
        raise ExportError(
            f"the weights are {weights / 1e9:.1f} GB, and an ONNX file holds 2 GB; --external puts them beside it"
        )
    if external:
        share_in_file(model, WeightsFile(path.parent, path.name + _EXTERNAL_SUFFIX))
    else:
        share_in_function(model)
        ir.external_data.load_to_model(model)
    ir.save(model, path)


def _check_model(path: Path, say: Callable[[str], None]) -> None:
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:  # of onnx's own kinds, or of its C++ parts
        raise ExportError(f"onnx.checker refuses the file: {first_line(error)}. Nothing was written") from error
    model = onnx.load(path, load_external_data=False)
    own = {function.domain for function in model.functions}
    others = {opset.domain for opset in model.opset_import} - {"", "ai.onnx", *own}
    if others:
        say(f"the model has operators of {', '.join(sorted(others))}, which not every runtime has")


def _difference(bundle: Bundle, settings: Settings, recipe: Recipe, limits: Limits, path: Path) -> float | None:
    """The largest difference of the file's maps from the runtime's on the pictures of the bundle's probe."""
    if bundle.manifest.probe is None:
        return None
    options = SessionOptions(resolve_providers(["CPUExecutionProvider"]))
    explainer = Explainer(bundle, options, precision=recipe.precision)
    picture = read_probe(bundle)[0][0]
    if recipe.uint8_input:  # of a size and shape of its own, so that there is something to resize and to crop
        picture = np.ascontiguousarray(picture.repeat(2, axis=1)[:, 3:])
    arguments: dict[str, Any] = {
        "method": settings.method.name,
        "top_k": recipe.top_k or min(2, len(explainer.labels)),
        "batch_size": recipe.batch_size,
        "budget": limits.budget,
        "completion": "none",
        **settings.options,
    }
    explanation = explainer.explain(picture, **arguments)
    inputs: dict[str, NDArray[Any]] = {"image": picture if recipe.uint8_input else explainer.preprocess(picture)}
    if recipe.top_k is None:
        inputs["classes"] = np.array(explanation.targets, np.int64)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        targets, saliency = session.run(["targets", "saliency"], inputs)
    except Exception as error:  # ONNX Runtime raises its own types
        raise ExportError(f"ONNX Runtime does not run the file: {first_line(error)}. Nothing was written") from error
    if tuple(targets) != explanation.targets:
        raise ExportError(
            f"the file explains the classes {targets.tolist()} and the runtime {list(explanation.targets)}. "
            "Nothing was written"
        )
    return float(np.abs(saliency - explanation.maps).max())


def _parameters(model: ir.Model) -> dict[str, str]:
    """What a client of a server wants to know."""
    return {key: model.metadata_props[f"ortcam.{key}"] for key in ("method", "options", "input", "labels")}


def _describe(model: ir.Model, place: _Place, weights: Path | None, difference: float | None) -> Fused:
    graph = model.graph
    return Fused(
        path=place.model,
        external=weights,
        size=sum(path.stat().st_size for path in (place.model, weights) if path is not None),
        opset=graph.opset_imports[""],
        nodes=sum(1 for _ in ir.traversal.RecursiveGraphIterator(graph)),
        inputs={str(value.name): _in_words(value) for value in graph.inputs},
        outputs={str(value.name): _in_words(value) for value in graph.outputs},
        difference=difference,
        metadata=dict(model.metadata_props),
    )


def _in_words(value: ir.Value) -> str:
    assert value.dtype is not None
    assert value.shape is not None
    name = {"FLOAT": "float32"}.get(value.dtype.name, value.dtype.name.lower())
    return f"{name} [{','.join(str(size) for size in value.shape)}]"
