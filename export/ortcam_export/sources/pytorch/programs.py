"""Models that are graphs already: programs of torch.export and TorchScript, made modules for any number of images."""

import copy
import io
import json
import operator
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from ortcam.bundle import FixedInput
from ortcam_export.errors import ExportError, first_line
from ortcam_export.sources.given.fixed_inputs import GivenInput
from ortcam_export.sources.pytorch.checkpoints import ALWAYS_ACCEPTED, check_archive
from ortcam_export.sources.pytorch.plain_modules import copied
from ortcam_export.sources.pytorch.program_inputs import examples_of, fix_inputs, image_of, shape_of

__all__ = [
    "image_channels",
    "image_keyword",
    "image_size",
    "is_program",
    "open_program",
    "open_script",
    "read_program_file",
]

Graph = torch.fx.GraphModule

_PROBES: Final = 3  # no batch that a program is likely to be fixed at
_TOLERANCE: Final = 1e-4
_TRACED: Final = 2
# The position of `training` among the arguments of operators that have two modes.
_MODES: Final = {
    "aten.dropout": 2,
    "aten.feature_dropout": 2,
    "aten.alpha_dropout": 2,
    "aten.batch_norm": 5,
    "aten.native_batch_norm": 5,
    "aten.instance_norm": 5,
}
# Files of torch.save in programs that PyTorch wrote before 2.8.
_OLD_FORMAT: Final = ("serialized_state_dict", "serialized_constants", "serialized_example_inputs")
_VIEWS: Final = ("aten.view", "aten.reshape", "aten._unsafe_view")
_MAKERS: Final = (
    "aten.expand",
    "aten.zeros",
    "aten.ones",
    "aten.full",
    "aten.empty",
    "aten.new_zeros",
    "aten.new_full",
)


def is_program(model: object) -> bool:
    """Whether it is a program of torch.export, or the module that its `.module()` returns."""
    # Such a module refuses eval() and train() by functions of its own.
    return isinstance(model, torch.export.ExportedProgram) or (isinstance(model, Graph) and "eval" in vars(model))


def read_program_file(
    path: Path, *, always: int = ALWAYS_ACCEPTED
) -> torch.export.ExportedProgram | torch.jit.ScriptModule:
    """Read a `.pt2` file of torch.export.save, or TorchScript of torch.jit.save, without running code of pickles.

    Args:
        path: of the file.
        always: bytes that it may unpack to however small it is.

    Raises:
        ExportError: it cannot be read, or holds pickled objects.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_archive(path, always=always)
            if path.suffix.lower() != ".pt2":
                script: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
                return script
            _refuse_pickles(path)
            return torch.export.load(path)
    except ExportError:
        raise
    except Exception as error:
        kind = "a program of torch.export" if path.suffix.lower() == ".pt2" else "TorchScript"
        raise ExportError(f"{path}: cannot be read as {kind}: {first_line(error)}") from error


def _refuse_pickles(path: Path) -> None:
    """torch.export.load unpickles whatever it cannot read as tensors."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):  # another reader may take the other one
            raise ExportError(f"{path}: has two files of one name in it; accepted is what torch.export.save writes")
        for name in names:
            held = Path(name).name
            pickled = held.startswith(("custom_obj_", "opaque_obj_"))
            if held.endswith("_config.json"):
                pickled = _says_pickle(archive.read(name))
            elif held.endswith((".pt", ".pkl")) or "sample_inputs" in name or held.startswith(_OLD_FORMAT):
                pickled = not _is_of_tensors(archive.read(name))
            if pickled:
                raise ExportError(
                    f"{path}: {name} in it holds pickled Python objects, which could run code when loaded; accepted is "
                    "a program of plain tensors"
                )


def _says_pickle(config: bytes) -> bool:
    """Whether a description of weights says of any that they are pickled."""

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend(value for key, value in pairs if key == "use_pickle")
        return dict(pairs)

    found: list[Any] = []
    json.loads(config, object_pairs_hook=noted)
    return any(found)


def _is_of_tensors(saved: bytes) -> bool:
    try:
        if saved:
            torch.load(io.BytesIO(saved), weights_only=True)
    except Exception:  # noqa: BLE001 - whatever it is, it is no plain tensor
        return False
    return True


def image_size(program: Graph) -> tuple[int, int] | None:
    """(H, W) of the images that a program was made for; None where it leaves them open."""
    shape = shape_of(image_of(program))
    if shape is None or len(shape) != 4:
        return None
    height, width = shape[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def image_channels(program: Graph) -> int | None:
    """How many channels the images have that a program was made for; None where it leaves that open."""
    shape = shape_of(image_of(program))
    return shape[1] if shape is not None and len(shape) == 4 and isinstance(shape[1], int) else None


def image_keyword(program: Graph) -> str | None:
    """The name of the argument for the images where a program takes them by name."""
    specification = getattr(program, "_in_spec", None)
    if specification is None:
        return None
    positional, named = specification.children()
    return str(named.context[0]) if positional.num_leaves == 0 and named.num_leaves == 1 else None


def open_program(
    model: torch.export.ExportedProgram | Graph, name: str, given: Mapping[str, GivenInput]
) -> tuple[Graph, dict[str, FixedInput]]:
    """A program as a module of its own for any number of images, its weights in float32 and on the CPU.

    Args:
        model: the program.
        name: for errors.
        given: values for all its inputs but the images.

    Returns:
        The module, and what a bundle says of the fixed inputs.

    Raises:
        ExportError: one of several inputs, in training mode, or fixed to its batch by more than its shapes.
    """
    graph = _as_graph(model, name)
    fixed = fix_inputs(graph, given, name)
    image_of(graph, name)
    _refuse_training(graph, name)
    _to_float32(graph)
    shape = shape_of(image_of(graph))
    if not shape or not isinstance(shape[0], int):
        return graph, fixed
    return _with_open_batch(graph, shape[0], shape, name), fixed


def open_script(
    script: torch.jit.ScriptModule, name: str, shape: tuple[int, int, int], given: Mapping[str, GivenInput]
) -> tuple[Graph, dict[str, FixedInput]]:
    """TorchScript as a module of its own for any number of images of this shape (C, H, W); see `open_program`.

    Raises:
        ExportError: torch cannot make a program of it.
    """
    examples = examples_of(script, torch.zeros(_TRACED, *shape), given, name)
    try:
        from torch._export.converter import TS2EPConverter  # noqa: PLC0415 - no public part of torch

        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            own = copy.deepcopy(script).float().cpu().eval()
            program = TS2EPConverter(own, (*examples.values(),), {}).convert()
    except Exception as error:
        raise ExportError(
            f"{name}: torch cannot make a program of this TorchScript: {first_line(error)}; accepted is the module it "
            "was made from, or torch.export's program of that"
        ) from error
    # The program has other names for the same inputs, in the same order.
    placeholders = (node.name for node in program.graph.nodes if node.op == "placeholder")
    names = dict(zip(examples, list(placeholders)[-len(examples) :], strict=True))
    graph, fixed = open_program(program, name, {names[key]: value for key, value in given.items()})
    return graph, {key: fixed[names[key]] for key in given}


def _as_graph(model: torch.export.ExportedProgram | Graph, name: str) -> Graph:
    """The graph of a program, a copy without what checks its inputs."""
    graph = copied(model.module() if isinstance(model, torch.export.ExportedProgram) else model, name)
    assert isinstance(graph, Graph)
    for checked in ("eval", "train"):
        vars(graph).pop(checked, None)
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            graph.graph.erase_node(node)
    graph._modules.pop("_guards_fn", None)
    graph._forward_pre_hooks.clear()
    graph._forward_pre_hooks_with_kwargs.clear()
    graph.recompile()
    return graph.eval()


def _kind(node: torch.fx.Node) -> str:
    """An operator without its overload: aten.view."""
    return str(node.target).rpartition(".")[0] if node.op == "call_function" else ""


def _refuse_training(graph: Graph, name: str) -> None:
    for node in graph.graph.nodes:
        position = _MODES.get(_kind(node))
        if position is not None and len(node.args) > position and node.args[position] is True:
            raise ExportError(
                f"{name}: the program was made in training mode ({_kind(node)} is on); accepted is one of a module "
                "after eval()"
            )


def _to_float32(graph: Graph) -> None:
    """Turn a program in another precision into one in float32: its weights, and the types in its operators."""
    others = {tensor.dtype for tensor in (*graph.parameters(), *graph.buffers()) if tensor.is_floating_point()}
    others -= {torch.float32}
    graph.float().cpu()
    # Tensors that are neither parameters nor buffers.
    for part in graph.modules():
        for key, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor):
                setattr(part, key, value.float().cpu() if value.is_floating_point() else value.cpu())
    if not others:
        return

    def plain(value: Any) -> Any:
        return torch.float32 if isinstance(value, torch.dtype) and value in others else value

    for node in graph.graph.nodes:
        node.args = torch.fx.node.map_aggregate(node.args, plain)
        node.kwargs = torch.fx.node.map_aggregate(node.kwargs, plain)
    graph.recompile()


def _with_open_batch(graph: Graph, batch: int, shape: tuple[Any, ...], name: str) -> Graph:
    """A program that was made for a fixed batch, for any; checked against itself.

    The batch stands in it as a number, where a shape is written out. Each such number becomes the size of the input.
    """
    opened = copy.deepcopy(graph)
    _open_shapes(opened, batch)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_PROBES, *shape[1:], generator=generator)
    keyword = image_keyword(graph)

    def run(program: Graph, chunk: torch.Tensor) -> list[torch.Tensor]:
        returned = program(chunk) if keyword is None else program(**{keyword: chunk})
        leaves = torch.utils._pytree.tree_leaves(returned)
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.ndim]

    with torch.inference_mode():
        one_by_one = [run(graph, image[None].expand(batch, *image.shape).contiguous()) for image in images]
        expected = [torch.stack([leaves[index][0] for leaves in one_by_one]) for index in range(len(one_by_one[0]))]
        try:
            found = run(opened, images)
            same = all(
                ours.shape == theirs.shape and _distance(ours, theirs) <= _TOLERANCE
                for ours, theirs in zip(found, expected, strict=True)
            )
        except Exception:  # noqa: BLE001 - torch raises its own types for shapes that do not fit
            same = False
    if not same:
        raise ExportError(
            f"{name}: the program is fixed to a batch of {batch}; export it for any batch: torch.export.export(module, "
            'args, dynamic_shapes=({0: torch.export.Dim("batch")},)) with two images or more'
        )
    return opened


def _distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))


def _open_shapes(graph: Graph, batch: int) -> None:
    image = image_of(graph)
    with graph.graph.inserting_after(image):
        count = graph.graph.call_function(torch.ops.aten.sym_size.int, (image, 0))
    of_the_image = {image}
    for node in list(graph.graph.nodes):
        if node in (image, count) or not any(source in of_the_image for source in node.all_input_nodes):
            depends = False
        else:
            of_the_image.add(node)
            depends = True
        kind, shape = _kind(node), shape_of(node)
        if shape is None or not shape or not (kind in _MAKERS or (kind in _VIEWS and depends)):
            continue
        position = next((at for at, value in enumerate(node.args) if isinstance(value, (list, tuple))), None)
        if position is None:
            continue
        sizes = list(node.args[position])
        if not sizes or not isinstance(sizes[0], int) or sizes[0] < batch or sizes[0] % batch or sizes[0] != shape[0]:
            continue
        if batch == 1 and sizes[0] != 1:
            continue  # 1 is in everything
        with graph.graph.inserting_before(node):
            factor = sizes[0] // batch
            sizes[0] = count if factor == 1 else graph.graph.call_function(operator.mul, (count, factor))
        node.update_arg(position, sizes)
    if not count.users:
        graph.graph.erase_node(count)
    graph.graph.lint()
    graph.recompile()
