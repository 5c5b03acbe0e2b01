"""Models, checkpoints and labels of strangers at export: one sentence each, no memory, no foreign file, and an end."""

import io
import json
import lzma
import os
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ortcam.cli import main
from ortcam_export import ExportError, inspect_model
from ortcam_export.sources.labels import read_labels
from ortcam_export.sources.onnx_files.limits import check_limits
from ortcam_export.sources.pytorch.checkpoints import ALWAYS_ACCEPTED, read_checkpoint
from ortcam_export.sources.pytorch.programs import read_program_file

IMAGE = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])
LOGITS = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
OPSET = helper.make_opsetid("", 20)
OWN = helper.make_opsetid("d", 1)


def number(name: str, value: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """The mean colour of an image [N,3] as `mean`, and nodes that make the logits of it."""
    first = helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0)
    graph = helper.make_graph([first, *nodes], "g", [IMAGE], [LOGITS], [number("axes", [2, 3]), *constants])
    made = helper.make_model(graph, opset_imports=[OPSET, OWN], ir_version=10)
    made.functions.extend(functions)
    return made


def function(name: str, *called: str) -> onnx.FunctionProto:
    names = ["x", *(f"v{index}" for index in range(len(called) - 1)), "y"]
    nodes = [
        helper.make_node(other, [names[i]], [names[i + 1]], domain="" if other == "Tanh" else "d")
        for i, other in enumerate(called)
    ]
    return helper.make_function("d", name, ["x"], ["y"], nodes, [OPSET, OWN])


def loop(turns: str = "", constants: Sequence[onnx.TensorProto] = ()) -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["x"], ["x2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x2", TensorProto.FLOAT, None),
        ],
    )
    node = helper.make_node("Loop", [turns, "true", "mean"], ["logits"], body=body, name="spin")
    return model([node], [number("true", True), *constants])


def sized(operator: str, *inputs: onnx.TensorProto, **attributes: Any) -> onnx.ModelProto:
    made = helper.make_node(operator, [tensor.name for tensor in inputs], ["big"], **attributes)
    total = helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0)
    cast = helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT)
    return model([made, total, cast, helper.make_node("Add", ["mean", "float"], ["logits"])], inputs)


def external(location: str, **entries: int) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model([helper.make_node("Add", ["mean", "w"], ["logits"])], [tensor])


def nested(depth: int) -> onnx.ModelProto:
    """Ifs inside each other, put together as bytes: protobuf itself does not write so many."""
    text = lambda tag, body: bytes([tag]) + varint(len(body)) + body  # noqa: E731

    def varint(value: int) -> bytes:
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    graph = b""
    for _ in range(depth):
        attribute = text(0x0A, b"then_branch") + text(0x32, graph)
        graph = text(0x0A, text(0x22, b"If") + text(0x2A, attribute))
    return b"\x08\x0a" + text(0x3A, graph)  # type: ignore[return-value]


def linked(folder: Path) -> onnx.ModelProto:
    secret = folder.parent / "secret"
    secret.write_bytes(bytes(64))
    (folder / "link").symlink_to(secret)
    return external("link")


def in_memory(folder: Path) -> onnx.ModelProto:
    (folder / "*").mkdir()
    (folder / "*" / "_ORT_MEM_ADDR_").mkdir()
    (folder / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(1 << 17))
    return external("*/_ORT_MEM_ADDR_/*", offset=0x10000, length=12)


def beside(folder: Path, **entries: int) -> onnx.ModelProto:
    (folder / "data").write_bytes(bytes(64))
    return external("data", **entries)


BIG = 1 << 40
LAUGHS = [function(f"F{i}", f"F{i + 1}", f"F{i + 1}") for i in range(28)] + [function("F28", "Tanh")]
CALL = helper.make_node("F0", ["mean"], ["logits"], domain="d")
GRAPHS: dict[str, tuple[Callable[[Path], onnx.ModelProto | bytes], str]] = {
    "infinite loop": (lambda _: loop(), "Loop 'spin' has no constant number of turns"),
    "a loop of 2^62 turns": (lambda _: loop("n", [number("n", 1 << 62)]), "accepted are 100000 at most"),
    "a function that calls itself": (lambda _: model([CALL], functions=[function("F0", "F0")]), "'F0' calls itself"),
    "functions in a circle": (
        lambda _: model([CALL], functions=[function("F0", "F1"), function("F1", "Tanh", "F0")]),
        "calls itself",
    ),
    "billion laughs": (lambda _: model([CALL], functions=LAUGHS), "more than 1000000 nodes"),
    "a huge constant": (
        lambda _: sized("ConstantOfShape", number("n", [BIG])),
        "ConstantOfShape .* 1.1e\\+12 elements",
    ),
    "a huge expansion": (lambda _: sized("Expand", number("v", [1.0]), number("n", [BIG])), "Expand .*elements"),
    "a huge tiling": (lambda _: sized("Tile", number("v", [1.0]), number("n", [BIG])), "Tile .*elements"),
    "a huge range": (
        lambda _: sized("Range", number("a", 0), number("b", BIG), number("c", 1)),
        "Range .*elements",
    ),
    "a range of no step": (lambda _: sized("Range", number("a", 0), number("b", 9), number("c", 0)), "Range .*inf"),
    "huge noise": (lambda _: sized("RandomNormal", shape=[1 << 20, 1 << 20]), "RandomNormal .*elements"),
    "weights above": (lambda _: external("../secret"), "lie outside its folder"),
    "weights somewhere": (lambda _: external("/etc/passwd"), "lie outside its folder"),
    "weights by a link": (linked, "lie outside its folder"),
    "weights in memory": (in_memory, "address in memory"),
    "weights that lie": (lambda folder: beside(folder, length=4), "takes 12 bytes"),
    "weights before the file": (lambda folder: beside(folder, offset=-8), "takes 12 bytes|cannot be read"),
    "weights past the end": (lambda folder: beside(folder, offset=1 << 62), "truncated"),
    "ten thousand graphs deep": (lambda _: nested(10_000), "cannot be read as ONNX"),
    "ninety graphs deep": (lambda _: nested(90), "cannot be read as ONNX|no graph with an output"),
    "a name that colours the terminal": (
        lambda _: model([helper.make_node("\x1b[31mEvil", ["mean"], ["logits"], domain="\x1b]0;x\x07")]),
        "custom operator",
    ),
}


@pytest.mark.sample(every=12)
@pytest.mark.whole
@pytest.mark.parametrize("case", GRAPHS)
def test_a_graph_of_a_stranger_is_refused_in_one_sentence(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = GRAPHS[case]
    folder = tmp_path / "folder"
    folder.mkdir()
    made = make(folder)
    path = folder / "net.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    with pytest.raises(ExportError, match=message):
        inspect_model(path)
    assert main(["inspect", str(path)]) == 2
    printed = capfd.readouterr()
    (line,) = printed.err.splitlines()
    assert printed.out == ""
    assert not set(line) & set("\x1b\x07")


def test_loops_with_few_turns_and_functions_that_end_are_within_the_limits() -> None:
    check_limits(loop("n", [number("n", 100)]))
    check_limits(model([CALL], functions=[function("F0", "F1", "F1"), function("F1", "Tanh")]))
    check_limits(sized("ConstantOfShape", number("n", [1 << 20])))


def test_turns_of_loops_inside_each_other_multiply() -> None:
    inner = loop("n", [number("n", 1000)]).graph
    outer = loop("n", [number("n", 1000)])
    outer.graph.node[-1].attribute[0].g.node.extend(inner.node[-1:])
    outer.graph.node[-1].attribute[0].g.node[-1].output[0] = "unused"
    with pytest.raises(ExportError, match="1000000 turns"):
        check_limits(outer)


def circular() -> dict[str, Any]:
    state: dict[str, Any] = {}
    state["model"] = state
    return state


def deep() -> dict[str, Any]:
    state: dict[str, Any] = {"weight": torch.zeros(1)}
    for _ in range(50):
        state = {"state_dict": state}
    return state


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("PWNED",)


def save_circular(path: Path) -> None:
    torch.save(circular(), path)


def save_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Runs()}))


def save_code(path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "more": Runs()}, path)


class Grows:
    """Pickled as a bytearray of a size, as a few bytes say it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (1 << 20,)


def save_bytearray(path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "more": Grows()}, path)


def save_old_bytearray(path: Path) -> None:
    state = {"weight": torch.zeros(1), "more": Grows()}
    torch.save(state, path, _use_new_zipfile_serialization=False)


def save_repeated(path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, path)


def save_bomb(path: Path) -> None:
    """A checkpoint whose one tensor is deflated a thousand times."""
    plain = io.BytesIO()
    torch.save({"weight": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as given, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in given.namelist():
            made.writestr(name, given.read(name))
        made.writestr("more", bytes(1 << 20))
    # What the archive says of itself is what counts, and it says 2 GB.
    content = path.read_bytes()
    place = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[: place + 24] + (1 << 31).to_bytes(4, "little") + content[place + 28 :])


def save_xz_bomb(path: Path) -> None:
    packer = lzma.LZMACompressor(preset=0)
    zeros = bytes(1 << 24)
    with path.open("wb") as file:
        for _ in range(4):
            file.write(packer.compress(zeros))
        file.write(packer.flush())


def save_lying_header(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))


def save_endless_header(path: Path) -> None:
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def save_arrays(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), weight=np.array([Runs()], dtype=object))
    path.with_suffix(".npz").rename(path)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a dict that contains itself": ("a.pth", save_circular, "contains itself"),
    "a dict in fifty others": ("a.pth", lambda path: torch.save(deep(), path), "more than 16 deep"),
    "a pickle": ("a.pth", save_pickle, "pickled Python objects|cannot be read"),
    "code beside weights": ("a.pth", save_code, "pickled Python objects"),
    "a bytearray of any size": ("a.pth", save_bytearray, "holds a bytearray"),
    "the same as it was saved formerly": ("a.pth", save_old_bytearray, "holds a bytearray"),
    "a tensor that repeats one element": ("a.pth", save_repeated, "would take 4.4e\\+12 bytes"),
    "an archive that unpacks to far more": ("a.pth", save_bomb, "unpacks to 2.2e\\+09 bytes"),
    "xz that unpacks to far more": ("a.pth.xz", save_xz_bomb, "unpacks to more than"),
    "a header that lies": ("a.safetensors", save_lying_header, "cannot be read as safetensors"),
    "a header without end": ("a.safetensors", save_endless_header, "cannot be read as safetensors"),
    "pickles in numpy's archive": ("a.pth", save_arrays, "cannot be read|pickled|not a state dict"),
    "a pipe": ("a.pth", make_fifo, "no regular file"),
    "a device": ("a.pth", lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "a pipe of safetensors": ("a.safetensors", make_fifo, "no regular file"),
    "nothing": ("a.pth", lambda path: path.write_bytes(b""), "cannot be read"),
    "garbage": ("a.pth", lambda path: path.write_bytes(bytes(range(256))), "cannot be read|pickled"),
}


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_of_a_stranger_is_refused_in_one_sentence(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, make, message = CHECKPOINTS[case]
    always = 1 << 25 if name.endswith(".xz") else ALWAYS_ACCEPTED  # a bomb that takes no second
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    make(tmp_path / name)
    with pytest.raises(ExportError, match=message) as raised:
        read_checkpoint(tmp_path / name, always=always)
    assert "\n" not in str(raised.value)
    assert "PWNED" not in capfd.readouterr().out


def program(folder: Path, config: str, *, twice: bool = False) -> Path:
    path = folder / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data/weights/model_weights_config.json", config)
        if twice:
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("net/data/weights/model_weights_config.json", "{}")
    return path


@pytest.mark.parametrize("key", ['"use_pickle": true', '"use_pickle" :\n true', '"use\\u005fpickle":true'])
def test_a_program_says_in_any_spelling_that_it_holds_pickles(key: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="pickled Python objects"):
        read_program_file(program(tmp_path, f'{{"config": {{"w": {{{key}}}}}}}'))


@pytest.mark.parametrize("name", ["net.pt2", "net.pt"])
def test_a_program_that_unpacks_to_far_more_is_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data/weights/model_weights_config.json", bytes(1 << 21))
    with pytest.raises(ExportError, match=r"unpacks to 2\.1e\+06 bytes"):
        read_program_file(tmp_path / name, always=1 << 20)  # a bomb that takes no second


def test_a_program_with_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="two files of one name"):
        read_program_file(program(tmp_path, "{}", twice=True))


LABELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "no regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "links in a circle": (lambda path: path.symlink_to(path), "cannot be read|no such file"),
    "too many": (lambda path: path.write_bytes(bytes((1 << 24) + 1)), "more than 16777216 bytes"),
    "binary": (lambda path: path.write_bytes(bytes(range(256))), "cannot be read as a file of labels"),
    "deep": (lambda path: path.write_text("[" * 100_000), "not JSON"),
    "half a letter": (lambda path: path.write_text('["\\ud800"]'), "no Unicode text"),
    "long numbers": (lambda path: path.write_text("[" + "9" * 5000 + "]"), "not JSON|holds no labels"),
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
@pytest.mark.parametrize("case", LABELS)
def test_labels_of_a_stranger_are_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    make, message = LABELS[case]
    path = tmp_path / "labels.txt"
    make(path)
    with pytest.raises(ExportError, match=message):
        read_labels(path)
