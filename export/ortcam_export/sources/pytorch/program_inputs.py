"""The inputs of a program: the image, and further ones, in whose place values are put."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from ortcam.bundle import FixedInput
from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError
from ortcam_export.sources.given.fixed_inputs import GivenInput, record_of

__all__ = ["examples_of", "fix_inputs", "image_of", "shape_of"]

Graph = torch.fx.GraphModule


def image_of(graph: Graph, name: str = "") -> torch.fx.Node:
    """The one input of a program.

    Raises:
        ExportError: it has several; the message says how to fix the others.
    """
    inputs = _placeholders(graph)
    if len(inputs) != 1:
        first = next((node for node in inputs if len(shape_of(node) or ()) == 4), inputs[0] if inputs else None)
        flags = " ".join(f"--input {node.name}=FILE|VALUE" for node in inputs if node is not first)
        raise ExportError(
            f"{name}: the program takes {len(inputs)} inputs, {', '.join(map(_in_words, inputs))}; accepted is one, "
            f"images [N,C,H,W]: fix the others, say {flags}"
        )
    return inputs[0]


def shape_of(node: torch.fx.Node) -> tuple[int | torch.SymInt, ...] | None:
    """The shape of a tensor in a program, as it was traced."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def fix_inputs(graph: Graph, given: Mapping[str, GivenInput], name: str) -> dict[str, FixedInput]:
    """Put values in the place of a program's inputs; those that follow the batch of the image are repeated."""
    if not given:
        return {}
    inputs = _placeholders(graph)
    listed = ", ".join(map(_in_words, inputs))
    by_name = {node.name: node for node in inputs}
    for key in given:
        if key not in by_name:
            raise ExportError(
                f"{name}: --input {key}: it has no such input{did_you_mean(key, by_name)}; its inputs are {listed}"
            )
    left = [node for node in inputs if node.name not in given]
    if len(left) != 1:
        raise ExportError(f"{name}: its inputs are {listed}; accepted are values for all of them but the image")
    image = left[0]
    inputs[-1].append(image)  # behind the others, so that their sizes can follow its own
    records = {}
    for index, (key, value) in enumerate(given.items()):
        array, batched = _value_of(by_name[key], value, image)
        records[key] = record_of(value, array)
        _put_constant(graph, by_name[key], torch.from_numpy(array), f"ortcam_input_{index}", image if batched else None)
    information = graph.graph._codegen.pytree_info  # type: ignore[attr-defined]
    _, taken = torch.utils._pytree.tree_flatten(((0,), {}))
    graph.graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo([image.name], taken, information.out_spec)))
    graph._in_spec = taken
    graph.graph.lint()
    graph.recompile()
    return records


def _value_of(node: torch.fx.Node, given: GivenInput, image: torch.fx.Node) -> tuple[NDArray[Any], bool]:
    """The value of an input in its type and shape, and whether it is repeated for each image of a batch."""
    example = node.meta.get("val")
    if not isinstance(example, torch.Tensor):
        raise ExportError(f"{given.in_words}: the input {node.name!r} is no tensor; accepted is one of numbers")
    sides, of_image = list(example.shape), list(shape_of(image) or ())
    batched = bool(sides and of_image) and str(sides[0]) == str(of_image[0])
    fixed: list[int | None] = [side if isinstance(side, int) else None for side in sides]
    values = given.fitted(fixed, batched=batched, taken=_in_words(node))
    kind = np.dtype(str(example.dtype).removeprefix("torch.")) if example.dtype != torch.bfloat16 else np.float32
    return np.array(dataclasses.replace(given, values=values).cast(np.dtype(kind))), batched


def _put_constant(
    graph: Graph, node: torch.fx.Node, value: torch.Tensor, name: str, image: torch.fx.Node | None
) -> None:
    graph.register_buffer(name, value)
    with graph.graph.inserting_after(image or node):
        constant = graph.graph.get_attr(name)
    if image is not None:
        with graph.graph.inserting_after(constant):
            count = graph.graph.call_function(torch.ops.aten.sym_size.int, (image, 0))
        with graph.graph.inserting_after(count):
            sizes: Any = [count, *(-1 for _ in value.shape[1:])]
            constant = graph.graph.call_function(torch.ops.aten.expand.default, (constant, sizes))
    node.replace_all_uses_with(constant)
    graph.graph.erase_node(node)


def _placeholders(graph: Graph) -> list[torch.fx.Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _in_words(node: torch.fx.Node) -> str:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return repr(node.name)
    return f"{node.name!r} {str(value.dtype).removeprefix('torch.')} [{','.join(map(str, value.shape))}]"


def examples_of(
    script: torch.jit.ScriptModule, images: torch.Tensor, given: Mapping[str, GivenInput], name: str
) -> dict[str, torch.Tensor]:
    """What TorchScript is converted with, by its arguments in their order: images, and the values of the others.

    Raises:
        ExportError: it has no such argument, or others that have no value.
    """
    schema: Any = script.forward.schema  # type: ignore[attr-defined]
    names = [argument.name for argument in schema.arguments[1:]]
    left = [key for key in names if key not in given]
    if unknown := [key for key in given if key not in names]:
        hint = did_you_mean(unknown[0], names)
        raise ExportError(f"{name}: --input {unknown[0]}: it has no such argument{hint}; it takes {', '.join(names)}")
    needed = [argument.name for argument in schema.arguments[1:] if not argument.has_default_value()]
    if len(missing := [key for key in needed if key in left][1:]) > 0:
        flags = " ".join(f"--input {key}=FILE|VALUE" for key in missing)
        raise ExportError(f"{name}: it takes {', '.join(names)}; accepted is one image: fix the others, say {flags}")
    image = next(iter(left), None)
    return {
        key: _example(given[key], len(images)) if key in given else images for key in names if key in (image, *given)
    }


def _example(given: GivenInput, batch: int) -> torch.Tensor:
    """A value that stands for that of an input: floating numbers as float32, and one of an image for each of them."""
    values = torch.as_tensor(given.values)
    values = values.float() if values.is_floating_point() else values
    return values.expand(batch, *values.shape[1:]) if values.ndim and values.shape[0] == 1 else values
