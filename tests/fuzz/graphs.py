"""Fuzzing of a bundle's graphs: their protobuf changed field by field, with the hashes of the files made right."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError

from tests.fuzz import bundles

__all__ = ["add_branch", "add_external", "add_function", "add_loop", "add_sparse", "change", "seeds", "try_on"]

_LOCATIONS: Final = (
    *(
        "weights.bin",
        "unlisted.bin",
        "../secret.bin",
        "/etc/hostname",
        "sub/weights.bin",
        "./weights.bin",
        "",
        ".",
        "..",
    ),
    *("bundle.json", "probe.npy", "head.onnx", "*/_ORT_MEM_ADDR_/*", "weights.bin\0x", "weights.bin ", "/dev/zero"),
)
_TEXTS: Final = (
    *("", "image", "features", "logits", "maps", "N", "B", "x", "float32", "ai.onnx", "com.microsoft", "a" * 3000, "é"),
    *(
        "Identity",
        "Relu",
        "Tanh",
        "Add",
        "Mul",
        "MatMul",
        "Reshape",
        "Expand",
        "Tile",
        "ConstantOfShape",
        "Gather",
        "Cast",
    ),
    *("Resize", "Conv", "Range", "Loop", "If", "Scan", "NonZero", "Squeeze", "Pad", "TopK", "Einsum", "SequenceEmpty"),
    *_LOCATIONS,
)
_NUMBERS: Final = (
    *range(-2, 18),
    31,
    64,
    255,
    1024,
    1 << 16,
    1 << 20,
    (1 << 31) - 1,
    -(1 << 31),
    1 << 40,
    (1 << 63) - 1,
    -(1 << 63),
)
_FRACTIONS: Final = (0.0, -1.0, 1e-38, 1e38, float("inf"), float("nan"))
_MOST: Final = 4000  # messages of a graph that are looked at


def try_on(data: bytes) -> None:
    """Use the bundle with this graph; see `bundles.try_with`."""
    bundles.try_with(data, verified=len(data) % 8 == 0)


def seeds() -> list[bytes]:
    """The graphs that are used by default, and the head once with each kind of thing that is to be refused."""
    made = bundles.files()
    inputs = [bundles.write_input(name, made[name]) for name in ("features.onnx", "head.onnx", "scorer-linear.onnx")]
    for add in (add_external, add_sparse, add_branch, add_function, add_loop):
        model = onnx.load_model_from_string(made["head.onnx"])
        add(model)
        inputs.append(bundles.write_input("head.onnx", model.SerializeToString()))
    return inputs


def change(data: bytes, random: Random, change_bytes: Callable[[bytes, int], bytes], longest: int) -> bytes:
    """Another graph, that protobuf can read in most cases."""
    name, content = bundles.read_input(data)
    if not name.endswith(".onnx"):
        name = random.choice(("features.onnx", "head.onnx", "scorer-linear.onnx"))
        content = bundles.files()[name]
    if random.random() < 0.2:
        changed = change_bytes(content, longest - 20)
    else:
        try:
            model = onnx.load_model_from_string(content)
        except DecodeError:
            return bundles.write_input(name, change_bytes(content, longest - 20))
        for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
            if random.random() < 0.2:
                random.choice((add_external, add_sparse, add_branch, add_function, add_loop, _move_out))(model, random)
            else:
                _change_message(random.choice(list(_messages(model))), random)
        try:
            changed = model.SerializeToString()
        except ValueError:  # too large
            changed = content
    made = bundles.write_input(name, changed)
    return made if len(made) <= longest else data


def _messages(message: Any) -> Iterator[Any]:
    """A message and those inside it, the first few thousand."""
    waiting, count = [message], 0
    while waiting and count < _MOST:
        current = waiting.pop()
        count += 1
        yield current
        for field, value in current.ListFields():
            if field.message_type is not None:
                waiting += value if field.is_repeated else [value]


def _change_message(message: Any, random: Random) -> None:
    """One field of a message changed; what protobuf does not take stays as it was."""
    present = [field for field, _ in message.ListFields()]
    fields = present if present and random.random() < 0.85 else list(message.DESCRIPTOR.fields)
    field = random.choice(fields)
    try:
        if field.is_repeated:
            _change_list(getattr(message, field.name), field, random)
        elif random.random() < 0.1:
            message.ClearField(field.name)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, _value(field, getattr(message, field.name), random))
    except (TypeError, ValueError, OverflowError):
        pass


def _change_list(values: Any, field: Any, random: Random) -> None:
    way = random.randrange(4)
    if way == 0 and len(values):
        del values[random.randrange(len(values))]
    elif field.message_type is not None:
        if way == 1 and len(values):
            values.add().CopyFrom(random.choice(values))
        elif way == 2 and len(values) > 1:
            first, second = random.choice(values), random.choice(values)
            kept = type(first)()
            kept.CopyFrom(first)
            first.CopyFrom(second)
            second.CopyFrom(kept)
        else:
            values.add()
    elif way == 1 or not len(values):
        values.append(_value(field, values[0] if len(values) else None, random))
    else:
        at = random.randrange(len(values))
        values[at] = random.choice(values) if way == 2 else _value(field, values[at], random)


def _value(field: Any, old: Any, random: Random) -> Any:
    """A value of a scalar field."""
    match field.cpp_type:
        case field.CPPTYPE_STRING if field.type == field.TYPE_BYTES:
            old = old or b""
            made = (b"", old[: len(old) // 2], old + bytes(8), bytes(random.randrange(256) for _ in range(16)))
            return random.choice((*made, random.choice(_TEXTS).encode()))
        case field.CPPTYPE_STRING:
            return random.choice((*_TEXTS, str(random.choice(_NUMBERS))))
        case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
            return random.choice(_FRACTIONS)
        case field.CPPTYPE_BOOL:
            return not old
        case field.CPPTYPE_ENUM:
            return random.choice(list(field.enum_type.values_by_number))
    return random.choice((*_NUMBERS, (old or 0) + 1, (old or 0) - 1))


_FIXED: Final = Random(0)


def _external(random: Random, location: str | None = None) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="foreign", data_type=onnx.TensorProto.UINT8, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    place = random.choice(_LOCATIONS) if location is None else location
    for key, value in (("location", place), ("offset", str(random.choice(_NUMBERS))), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def add_external(model: onnx.ModelProto, random: Random = _FIXED) -> None:
    model.graph.initializer.append(_external(random))
    model.graph.node.append(onnx.helper.make_node("Identity", ["foreign"], ["unused"]))


def _move_out(model: onnx.ModelProto, random: Random = _FIXED) -> None:
    """Weights that are there, looked for elsewhere."""
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and random.random() < 0.5:
                entry.value = random.choice(_LOCATIONS)


def add_sparse(model: onnx.ModelProto, random: Random = _FIXED) -> None:
    indices = onnx.helper.make_tensor("indices", onnx.TensorProto.INT64, [4], [0, 1, 2, 3])
    sparse = onnx.SparseTensorProto(values=_external(random, "../secret.bin"), indices=indices, dims=[8])
    if random.random() < 0.5:
        model.graph.sparse_initializer.append(sparse)
    else:
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["sparse"], sparse_value=sparse))


def _branch(random: Random) -> onnx.GraphProto:
    value = onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.UINT8, None)
    node = onnx.helper.make_node("Identity", ["foreign"], ["inner"])
    return onnx.helper.make_graph([node], "branch", [], [value], [_external(random, "unlisted.bin")])


def add_branch(model: onnx.ModelProto, random: Random = _FIXED) -> None:
    true = onnx.helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])
    node = onnx.helper.make_node("If", ["true"], ["chosen"], then_branch=_branch(random), else_branch=_branch(random))
    model.graph.initializer.append(true)
    model.graph.node.append(node)


def add_loop(model: onnx.ModelProto, random: Random = _FIXED) -> None:
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("turn", onnx.TensorProto.INT64, []), value("go", onnx.TensorProto.BOOL, [])],
        [value("on", onnx.TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(onnx.helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True]))
    model.graph.node.append(onnx.helper.make_node("Loop", ["", "true"], [], body=body, name=str(random.random())))


def add_function(model: onnx.ModelProto, random: Random = _FIXED) -> None:
    opsets = [onnx.helper.make_opsetid("own", 1), onnx.helper.make_opsetid("", 20)]
    inner = onnx.helper.make_node("F" if random.random() < 0.5 else "Tanh", ["x"], ["y"], domain="own")
    model.functions.append(onnx.helper.make_function("own", "F", ["x"], ["y"], [inner], opsets))
    model.opset_import.append(opsets[0])
    model.graph.node.append(onnx.helper.make_node("F", ["features"], ["called"], domain="own"))
