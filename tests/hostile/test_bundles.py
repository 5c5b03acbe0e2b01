"""Bundles made to do harm, sealed with right hashes as their makers would: each is refused in a sentence."""

import copy
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from tests.conftest import reseal

import ortcam
from ortcam.bundle import MANIFEST_NAME, read_bundle
from ortcam.bundle.graph_contents import GraphContents, GraphReader
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.cli import main
from ortcam.errors import BundleError, OrtcamError
from ortcam.parity import verify, verify_variants

CLASSES = 7
FEATURES = ["N", 1024, 7, 7]
SIZES = {"weights.bin": 1000, "other.bin": 1000}
PLACE = Path("head.onnx")

# Making hostile graphs -----------------------------------------------------------------------------------------------


def constant(name: str, value: object, dtype: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def elsewhere(location: str, *, size: int = 8, **entries: object) -> TensorProto:
    """A tensor of bytes in another file."""
    tensor = TensorProto(name="secret", data_type=TensorProto.UINT8, dims=[size], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": location, "offset": 0, "length": size} | entries).items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


MEAN = [
    helper.make_node("ReduceMean", ["features", "axes"], ["mean"], keepdims=0),
    helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
    helper.make_node("Expand", ["column", "row"], ["x"]),
]
CONSTANTS = [constant("axes", [1, 2, 3]), constant("one", [1]), constant("row", [1, CLASSES])]
IDENTITY = helper.make_node("Identity", ["x"], ["logits"])


def head(
    nodes: Sequence[onnx.NodeProto] = (IDENTITY,),
    tensors: Sequence[Any] = (),
    *,
    shape: Sequence[object] | None = ("N", CLASSES),
    dtype: int = TensorProto.FLOAT,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Features -> logits: the mean of the features for every class, and what is asked for."""
    graph = helper.make_graph(
        [*MEAN, *nodes],
        "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, FEATURES)],
        [helper.make_tensor_value_info("logits", dtype, shape)],
        [*CONSTANTS, *tensors],
    )
    imports = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)


def body(name: str, nodes: Sequence[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def branches(tensors: Sequence[TensorProto] = ()) -> onnx.NodeProto:
    """An If whose branch has tensors of its own."""
    then = body("then", [helper.make_node("Identity", ["x"], ["y"])], "y")
    then.initializer.extend(tensors)
    other = body("else", [helper.make_node("Identity", ["x"], ["z"])], "z")
    return helper.make_node("If", ["true"], ["logits"], then_branch=then, else_branch=other)


def loop() -> onnx.NodeProto:
    """A Loop that never ends."""
    inputs = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, ["N", CLASSES]),
    ]
    outputs = [
        helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, ["N", CLASSES]),
    ]
    nodes = [helper.make_node("Identity", ["going"], ["goes_on"]), helper.make_node("Identity", ["state"], ["next"])]
    return helper.make_node("Loop", ["", "true", "x"], ["logits"], body=helper.make_graph(nodes, "b", inputs, outputs))


TRUE = constant("true", True, np.bool_)


def function(nodes: Sequence[onnx.NodeProto], name: str = "F") -> onnx.FunctionProto:
    return helper.make_function(
        "own", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    )


CALL = helper.make_node("F", ["x"], ["logits"], domain="own")


def with_function(nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    return head([CALL], domains=["own"], functions=[function(nodes)])


def doubling(depth: int) -> onnx.ModelProto:
    """Functions that each call the next one twice: 2**depth nodes of a few kilobytes."""
    functions = [
        function(
            [
                helper.make_node(f"F{level + 1}", ["a"], ["c"], domain="own"),
                helper.make_node(f"F{level + 1}", ["c"], ["b"], domain="own"),
            ],
            f"F{level}",
        )
        for level in range(depth)
    ]
    functions.append(function([helper.make_node("Tanh", ["a"], ["b"])], f"F{depth}"))
    call = helper.make_node("F0", ["x"], ["logits"], domain="own")
    return head([call], domains=["own"], functions=functions)


def sparse(location: str) -> onnx.SparseTensorProto:
    values = TensorProto(name="s", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        values.external_data.add(key=key, value=value)
    return onnx.SparseTensorProto(values=values, indices=constant("", [0, 1]), dims=[4])


def attribute(kind: int, **values: Any) -> onnx.NodeProto:
    """A Constant with one attribute of a kind."""
    node = helper.make_node("Constant", [], ["unused"])
    name = {AttributeProto.SPARSE_TENSOR: "sparse_value"}.get(kind, "value")
    added = AttributeProto(name=name, type=kind)
    for field, value in values.items():
        if isinstance(value, list):
            getattr(added, field).extend(value)
        else:
            getattr(added, field).CopyFrom(value)
    node.attribute.append(added)
    return node


def training(tensor: TensorProto) -> onnx.ModelProto:
    model = head()
    graph = model.training_info.add().algorithm
    graph.name = "training"
    graph.initializer.append(tensor)
    return model


def sparse_initializer(location: str) -> onnx.ModelProto:
    model = head()
    model.graph.sparse_initializer.append(sparse(location))
    return model


# Where a tensor, or a location, may be in a file: a graph that has it there.
PLACES: dict[str, Callable[[str], onnx.ModelProto]] = {
    "initializer": lambda where: head(tensors=[elsewhere(where)]),
    "attribute": lambda where: head([IDENTITY, attribute(AttributeProto.TENSOR, t=elsewhere(where))]),
    "attributes": lambda where: head([IDENTITY, attribute(AttributeProto.TENSORS, tensors=[elsewhere(where)])]),
    "sparse attribute": lambda where: head(
        [IDENTITY, attribute(AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse(where))]
    ),
    "sparse attributes": lambda where: head(
        [IDENTITY, attribute(AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse(where)])]
    ),
    "sparse initializer": sparse_initializer,
    "branch": lambda where: head([branches([elsewhere(where)])], [TRUE]),
    "graph of an attribute": lambda where: head([branches([elsewhere(where)])], [TRUE]),
    "function": lambda where: with_function(
        [attribute(AttributeProto.TENSOR, t=elsewhere(where)), helper.make_node("Identity", ["a"], ["b"])]
    ),
    "training": lambda where: training(elsewhere(where)),
}


def look(data: bytes) -> GraphContents:
    return GraphReader(SIZES).read(data, PLACE)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the shipped bundle to make hostile."""
    return Path(shutil.copytree(bundle_path(), tmp_path / "hostile.ortcam"))


def put(bundle: Path, model: onnx.ModelProto | bytes, name: str = "head.onnx") -> Path:
    (bundle / name).write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    reseal(bundle)
    return bundle


PICTURE = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)


def refusal(use: Callable[[], object]) -> str:
    """What a BundleError says: one short line."""
    with pytest.raises(BundleError) as caught:
        use()
    text = str(caught.value)
    text.encode()
    assert "\n" not in text
    assert len(text) < 1000
    return text


# Files that a graph names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_names_no_file_that_is_not_listed_wherever_it_is(bundle: Path, place: str) -> None:
    (bundle.parent / "secret.bin").write_bytes(bytes(range(64)))
    put(bundle, PLACES[place]("../secret.bin"))
    for read in (ortcam.load, read_bundle, lambda path: ortcam.load(path, low_memory=True)):
        refusal(lambda read=read: read(bundle))


@pytest.mark.parametrize(
    "location",
    [
        *("../secret.bin", "{absolute}", "sub/secret.bin", "./weights.bin", "weights.bin/", "", "unlisted.bin"),
        *("link.bin", "hard.bin", "pipe", "/dev/zero", "/proc/self/environ", "file:///etc/passwd", "WEIGHTS.BIN"),
        *("*/_ORT_MEM_ADDR_/*", "_ORT_MEM_ADDR_", "weights.bin\0", "weights.bin ", "bundle.json", "a\\b", ".", ".."),
    ],
)
def test_a_location_is_the_plain_name_of_a_listed_file(bundle: Path, location: str) -> None:
    secret = bundle.parent / "secret.bin"
    secret.write_bytes(bytes(range(64)))
    put(bundle, PLACES["initializer"](location.format(absolute=secret)))
    shutil.copy(secret, bundle / "unlisted.bin")
    (bundle / "link.bin").symlink_to(secret)
    os.link(secret, bundle / "hard.bin")
    (bundle / "sub").symlink_to(secret.parent)
    if hasattr(os, "mkfifo"):
        os.mkfifo(bundle / "pipe")
    assert "is not one of the bundle's files" in refusal(lambda: ortcam.load(bundle))


@pytest.mark.parametrize(
    "entries",
    [
        *(
            {"offset": value}
            for value in (-8, 993, 2**31, 2**62, 2**63, 2**64, 10**30, "0x0", " 0", "+0", "1e2", "", None)
        ),
        *({"length": value} for value in (-8, 7, 9, 0, 1001, 2**40, 2**64, "", None)),
        *({"size": value} for value in (0, 7, 1001, 2**40, 2**62)),
        *({key: "0"} for key in ("checksum", "basepath", "prepacked_0", "Location", "")),
    ],
)
def test_a_part_of_a_file_is_as_large_as_the_tensor_and_within_the_file(entries: dict[str, object]) -> None:
    size = entries.pop("size", 8)
    tensor = elsewhere("weights.bin", **({"length": 8} | entries))
    tensor.dims[:] = [size]
    refusal(lambda: look(head(tensors=[tensor]).SerializeToString()))


def test_no_attribute_names_a_file_not_even_a_listed_one() -> None:
    """ONNX Runtime would look for it in the working directory, where another may lie."""
    for place in ("attribute", "attributes"):
        assert "in another file" in refusal(lambda place=place: look(PLACES[place]("weights.bin").SerializeToString()))


def test_what_a_good_graph_names_is_found() -> None:
    tensors = [elsewhere("weights.bin", offset=992), elsewhere("other.bin", size=1000)]
    tensors[1].name = "another"
    contents = GraphReader(SIZES).read(head(tensors=tensors).SerializeToString(), PLACE)
    assert contents.weights == {("weights.bin", 992, 8), ("other.bin", 0, 1000)}
    assert contents.files == ("other.bin", "weights.bin")
    assert contents.inputs["features"].shape == (None, 1024, 7, 7)
    assert contents.outputs["logits"].shape == (None, CLASSES)


@pytest.mark.parametrize("dtype", [0, 8, 99, -1])
def test_a_tensor_in_a_file_has_elements_of_a_known_size(dtype: int) -> None:
    tensor = elsewhere("weights.bin")
    tensor.data_type = dtype
    refusal(lambda: look(head(tensors=[tensor]).SerializeToString()))


@pytest.mark.parametrize("dims", [[-1], [2**31, 2**31], [2**62, 2**62], [1] * 65, [8, -1, -1], [33], [2**40]])
def test_a_tensor_has_a_possible_shape(dims: list[int]) -> None:
    tensor = elsewhere("weights.bin")
    tensor.dims[:] = dims
    refusal(lambda: look(head(tensors=[tensor]).SerializeToString()))
    for data in ({"raw_data": b"12345678"}, {"int32_data": [1] * 8}, {}):
        embedded = TensorProto(name="w", data_type=TensorProto.UINT8, dims=dims, **data)
        refusal(lambda embedded=embedded: look(head(tensors=[embedded]).SerializeToString()))


def test_an_empty_tensor_is_one() -> None:
    tensors = [
        TensorProto(name="a", data_type=TensorProto.FLOAT, dims=[0], raw_data=b""),
        TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[0]),
        TensorProto(name="c", data_type=TensorProto.STRING, dims=[2], string_data=[b"", b""]),
        constant("d", [], np.float32),
    ]
    assert not look(head(tensors=tensors).SerializeToString()).weights


def test_a_tensor_is_here_or_there() -> None:
    both = elsewhere("weights.bin")
    both.raw_data = b"12345678"
    neither = elsewhere("../secret.bin")
    neither.data_location = TensorProto.DEFAULT
    for tensor in (both, neither):
        refusal(lambda tensor=tensor: look(head(tensors=[tensor]).SerializeToString()))


# What protobuf and the reader could see otherwise --------------------------------------------------------------------


def field(number: int, payload: bytes) -> bytes:
    """A field of bytes, of any length below 2**21."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


GOOD = head(tensors=[elsewhere("weights.bin")]).SerializeToString()
HOSTILE_GRAPH = head(tensors=[elsewhere("../secret.bin")]).graph.SerializeToString()


def renamed(entries: bytes) -> bytes:
    """A model with a tensor whose one entry of external data is these bytes."""
    tensor = elsewhere("weights.bin", location=None).SerializeToString() + field(13, entries)
    return head().SerializeToString() + field(7, field(5, tensor))


LOCATION = field(1, b"location")


@pytest.mark.parametrize(
    "data",
    [
        GOOD + field(7, HOSTILE_GRAPH),  # protobuf makes one graph of two
        field(7, HOSTILE_GRAPH) + GOOD,
        field(7, field(5, elsewhere("weights.bin").SerializeToString() + field(8, b"again"))),
        field(7, field(5, elsewhere("weights.bin").SerializeToString() + field(13, LOCATION + field(2, b"../s")))),
        field(7, field(5, field(13, LOCATION + field(2, b"weights.bin") + field(2, b"../secret.bin")))),
        field(7, field(5, field(13, LOCATION + field(1, b"offset") + field(2, b"weights.bin")))),
        GOOD + b"\x3b\x3c",  # groups: of a known number and of unknown ones
        GOOD + b"\xfb\x01\xfc\x01",
        GOOD + b"\x02\x00",  # field 0
        GOOD + b"\x00\x00",
        GOOD + b"\x3e\x00",  # wire types that there are not
        GOOD + b"\x3f\x00",
        GOOD + b"\xfa\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",  # a number of a field beyond 29 bits
        GOOD + b"\xba\x00\x00",  # numbers longer than they have to be: of the field, of the length
        GOOD + b"\x3a\x80\x00",
        GOOD + b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        GOOD + b"\x3a\xff\xff\xff\xff\x07",  # 2 GB that are not there
        GOOD + b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        GOOD + b"\x38\x01",  # a graph that is a number
        GOOD + field(99, b"what later versions have"),
        field(7, b"") + b"\x3a",
        b"\x3a",
        b"",
        b"\x08\x0a",
        os.urandom(500),
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_what_readers_of_protobuf_see_differently_is_refused(data: bytes) -> None:
    refusal(lambda: look(data))


def test_every_beginning_of_a_graph_is_refused_or_is_one() -> None:
    data = GOOD
    for size in range(len(data)):
        try:
            look(data[:size])
        except BundleError:
            continue
        assert onnx.ModelProto.FromString(data[:size]).HasField("graph")


def places_of(model: onnx.ModelProto) -> set[str]:
    """The files that protobuf sees named in a graph."""
    tensors = [*model.graph.initializer, *(item.t for node in model.graph.node for item in node.attribute)]
    tensors = [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}


def test_of_a_graph_with_a_bit_flipped_protobuf_sees_the_same_files() -> None:
    """Each of them: refused, or the reader has found whatever protobuf finds."""
    accepted = 0
    for place in range(len(GOOD)):
        for bit in range(8):
            data = bytearray(GOOD)
            data[place] ^= 1 << bit
            try:
                contents = GraphReader(SIZES).read(bytes(data), PLACE)
            except BundleError as error:
                str(error).encode()
                continue
            accepted += 1
            try:
                model = onnx.ModelProto.FromString(bytes(data))
            except Exception:  # noqa: BLE001 - a text that is no UTF-8, in Python's protobuf
                continue
            assert places_of(model) == set(contents.files)
    assert accepted > 1000


def test_a_file_in_the_runtimes_own_format_is_refused_though_it_is_onnx_as_well() -> None:
    data = field(2, b"xxORTM") + head().SerializeToString()
    assert data[4:8] == b"ORTM"
    assert onnx.ModelProto.FromString(data).HasField("graph")
    assert "own format" in refusal(lambda: look(data))


# Graphs that would not end -------------------------------------------------------------------------------------------


def scan() -> onnx.NodeProto:
    state = helper.make_tensor_value_info("state", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", ["state"], ["out"])], "s", [state], [])
    graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, None))
    return helper.make_node("Scan", ["x"], ["logits"], body=graph, num_scan_inputs=1)


def nested(depth: int) -> onnx.NodeProto:
    node = branches()
    for _ in range(depth):
        outer = branches()
        outer.attribute[0].g.ClearField("node")
        outer.attribute[0].g.node.append(node)
        node = outer
    return node


@pytest.mark.sample(every=4)
@pytest.mark.parametrize(
    ("model", "word"),
    [
        (head([loop()], [TRUE]), "'Loop'"),
        (head([branches()], [TRUE]), "'If'"),
        (head([nested(30)], [TRUE]), "'If'"),
        (head([scan()]), "'Scan'"),
        (head([helper.make_node("Loop", ["", "true", "x"], ["logits"])]), "'Loop'"),
        (head([helper.make_node("SequenceMap", ["x"], ["logits"], body=body("b", [], "y"))]), "'SequenceMap'"),
        (
            head(
                [helper.make_node("BeamSearch", ["x"], ["logits"], domain="com.microsoft", decoder=body("b", [], "y"))]
            ),
            "'BeamSearch'",
        ),
        (with_function([helper.make_node("Identity", ["a"], ["b"])]), "functions"),
        (with_function([helper.make_node("F", ["a"], ["b"], domain="own")]), "functions"),
        (doubling(28), "functions"),
        (head([IDENTITY, attribute(AttributeProto.GRAPHS, graphs=[body("b", [], "y")])]), "'Constant'"),
        (head([helper.make_node("ReorderInput", ["x"], ["logits"], domain="com.microsoft.nchwc")]), "nchwc"),
        (head([helper.make_node("Load", ["x"], ["logits"], domain="own")]), "'own'"),
        (head([helper.make_node("TreeEnsembleRegressor", ["x"], ["logits"], domain="ai.onnx.ml")]), "'ai.onnx.ml'"),
        (
            head([helper.make_node("EPContext", ["x"], ["logits"], domain="com.microsoft", ep_cache_context="../a")]),
            "'EPContext'",
        ),
        (head([IDENTITY, *(helper.make_node("Tanh", ["x"], [f"y{i}"]) for i in range(20_001))]), "nodes"),
        (head([IDENTITY, helper.make_node("Constant", [], ["y"], value_ints=[1] * 1_000_001)]), "fields"),
    ],
    ids=lambda value: value if isinstance(value, str) else "graph",
)
def test_a_graph_that_may_run_for_ever_is_refused_when_it_is_loaded(
    bundle: Path, model: onnx.ModelProto, word: str
) -> None:
    assert word in refusal(lambda: ortcam.load(put(bundle, model)))


def test_all_graphs_are_looked_at_when_a_bundle_is_loaded(bundle: Path) -> None:
    """Those of methods that nobody has asked for, too."""
    model = onnx.load(bundle / "scorer-mish.onnx", load_external_data=False)
    model.graph.node.append(branches())
    put(bundle, model, "scorer-mish.onnx")
    for read in (ortcam.load, read_bundle):
        assert "scorer-mish.onnx" in refusal(lambda read=read: read(bundle))


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "{bundle}"],
        ["inspect", "{bundle}", "--verify"],
        ["explain", "{bundle}", "{picture}", "-o", "{output}"],
        ["benchmark", "{bundle}"],
        ["fuse", "{bundle}", "-o", "{output}.onnx"],
    ],
    ids=lambda command: "-".join(command[::2]),
)
def test_every_command_refuses_it_in_a_line(
    bundle: Path, tmp_path: Path, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    put(bundle, head([loop()], [TRUE]))
    places = {"bundle": bundle, "picture": demo_image(), "output": tmp_path / "output"}
    assert main([word.format_map(places) for word in command]) == 2
    output = capfd.readouterr()
    assert "holds a graph, which may run for ever" in output.err
    assert output.err.count("\n") == 1
    assert not output.out
    assert {path.name for path in tmp_path.iterdir()} == {bundle.name}


# Graphs that are not what the manifest says --------------------------------------------------------------------------

UNSAID = {"shape": None}
OUTPUTS = {
    "one side": head([helper.make_node("ReduceMean", ["features", "axes"], ["logits"], keepdims=0)], **UNSAID),
    "four sides": head([helper.make_node("Identity", ["features"], ["logits"])], **UNSAID),
    "no side": head([helper.make_node("ReduceMean", ["features"], ["logits"], keepdims=0)], **UNSAID),
    "fewer classes": head(
        [helper.make_node("Slice", ["x", "zero", "one", "one"], ["logits"])], [constant("zero", [0])], **UNSAID
    ),
    "no class": head(
        [helper.make_node("Slice", ["x", "zero", "zero", "one"], ["logits"])], [constant("zero", [0])], **UNSAID
    ),
    "another batch": head([helper.make_node("Concat", ["x", "x"], ["logits"], axis=0)], **UNSAID),
    "more classes": head([helper.make_node("Concat", ["x", "x"], ["logits"], axis=1)], **UNSAID),
    "integers": head([helper.make_node("Cast", ["x"], ["logits"], to=TensorProto.INT64)], dtype=TensorProto.INT64),
    "texts": head([helper.make_node("Cast", ["x"], ["logits"], to=TensorProto.STRING)], dtype=TensorProto.STRING),
    "doubles": head([helper.make_node("Cast", ["x"], ["logits"], to=TensorProto.DOUBLE)], dtype=TensorProto.DOUBLE),
    "said otherwise": head([helper.make_node("Concat", ["x", "x"], ["logits"], axis=1)]),
    "a declaration of two sides more": head(shape=["N", CLASSES, 1, 1]),
    "labels of another model": head([helper.make_node("Concat", ["x", "x"], ["logits"], axis=1)], shape=["N", 14]),
}


def uses(bundle: Path) -> Iterator[Callable[[], object]]:
    """What can be done with a bundle, each beginning by loading it."""
    yield lambda: ortcam.load(bundle).predict(PICTURE)
    yield lambda: ortcam.load(bundle).explain(PICTURE, budget=2, batch_size=2)
    yield lambda: ortcam.load(bundle).explain(PICTURE, budget=2, batch_size=2, method="scorecam", baseline="zeros")
    yield lambda: ortcam.load(bundle).explain(PICTURE, method="recipro-cam")
    yield lambda: ortcam.load(bundle).explain(PICTURE, method="cam")
    yield lambda: ortcam.load(bundle).logits(2, lambda rows: np.zeros((2, 3, 224, 224), np.float32)[rows])
    yield lambda: verify(read_bundle(bundle))


@pytest.mark.sample(every=4)
@pytest.mark.parametrize("what", OUTPUTS)
def test_logits_of_another_form_are_refused(bundle: Path, what: str) -> None:
    put(bundle, OUTPUTS[what])
    for use in uses(bundle):
        refusal(use)


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("output", ["probabilities", "logits", "partial_maps"])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.INT64])
def test_scores_of_another_form_are_refused(bundle: Path, output: str, dtype: int) -> None:
    """Whatever a scorer declares, masked logits are [B,K] and partial maps [K,H,W]."""
    model = onnx.load(bundle / "scorer-tanh.onnx", load_external_data=False)
    for node in model.graph.node:
        node.output[:] = [f"{name}_before" if name == output else name for name in node.output]
        node.input[:] = [f"{name}_before" if name == output else name for name in node.input]
    last = helper.make_node("Cast", ["short"], [output], to=dtype)
    model.graph.node.extend([helper.make_node("Flatten", [f"{output}_before"], ["short"], axis=0), last])
    for value in model.graph.output:
        if value.name == output:
            value.type.tensor_type.elem_type = dtype
            value.type.tensor_type.ClearField("shape")
    put(bundle, model, "scorer-tanh.onnx")
    for method in ({}, {"weighting": "logit-softmax"}):
        refusal(lambda method=method: ortcam.load(bundle).explain(PICTURE, budget=2, batch_size=2, **method))
    if output != "partial_maps":
        refusal(lambda: verify(read_bundle(bundle)))


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("shape", [None, ["N", 1024, 7, 7], ["N", 1024, 8, 7], ["N", 1024, 49], ["N", 7, 7, 1024]])
def test_features_of_another_form_are_refused(bundle: Path, shape: list[object] | None) -> None:
    model = onnx.load(bundle / "features.onnx", load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["before" if name == "features" else name for name in node.output]
        node.input[:] = ["before" if name == "features" else name for name in node.input]
    model.graph.node.append(helper.make_node("Transpose", ["before"], ["features"], perm=[0, 2, 3, 1]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, shape))
    put(bundle, model, "features.onnx")
    for use in uses(bundle):
        with pytest.raises(OrtcamError):  # of ONNX Runtime, where the head takes no such features
            use()


def test_weights_that_no_graph_uses_are_not_read(bundle: Path) -> None:
    """A file with a hole of 1 TB: whatever its hash, it is refused by its size and what the graphs name of it."""
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    size = 2**40
    try:
        os.truncate(bundle / "weights.bin", size)
    except OSError:
        size = 2**32
        os.truncate(bundle / "weights.bin", size)
    manifest["files"]["weights.bin"] = {"size": size, "sha256": "0" * 64}
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))
    for read in (ortcam.load, read_bundle):
        assert "of which the graphs use" in refusal(lambda read=read: read(bundle))


# Manifests -----------------------------------------------------------------------------------------------------------

MANIFEST = json.loads((bundle_path() / MANIFEST_NAME).read_text("utf-8"))


def leaves(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The paths of all entries of a manifest; of the files and labels some, since they are alike."""
    if path:
        yield path
    if isinstance(value, dict):
        entries = list(value.items())
        for key, entry in entries if path not in (("files",), ("graphs", "scorers")) else entries[:2]:
            yield from leaves(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value[:2]):
            yield from leaves(entry, (*path, index))


LEAVES = list(leaves(MANIFEST))
HUGE = 10**4000
VALUES = [
    *(None, True, False, "", "x" * 100_000, "NaN", "\ud800", "\0", "../x", "\x1b[2J", "١"),
    *(0, -1, 1, 2**31, 2**63, 2**64, 10**9, HUGE, -HUGE, 0.5, 1e-45, 1e-300, 1e300, -0.0),
    *([], [[]], [None], [1, 2, 3], [1e-300] * 3, {}, {"": {}}, {"\ud800": "\ud800"}, [{}] * 1000),
]


def holder_of(manifest: Any, path: tuple[object, ...]) -> Any:
    for key in path[:-1]:
        manifest = manifest[key]
    return manifest


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(bundle_path(), tmp_path_factory.mktemp("mutants") / "mutant.ortcam"))


@pytest.fixture(scope="module")
def good(base: Path) -> Iterator[ortcam.Explainer]:
    """Keeps the sessions open that the mutants share."""
    with ortcam.load(bundle_path(), threads=1) as explainer:
        explainer.explain(PICTURE, budget=1, batch_size=1)
        yield explainer


# What explanations are made with; the rest of a manifest is told.
MATTERS = ("labels", "activation", "preprocessing", "cut", "graphs")


def outcome(bundle: Path, text: str | bytes, good: ortcam.Explainer) -> str | None:
    """The refusal of a manifest, or None where all of it works: with numbers, and no answer but the right one."""
    (bundle / MANIFEST_NAME).write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        with np.errstate(all="ignore"):
            mutant = ortcam.load(bundle, threads=1)
            probabilities = mutant.predict(PICTURE)
            manifest, told = mutant.bundle.manifest, good.bundle.manifest
            if any(getattr(manifest, name) != getattr(told, name) for name in MATTERS):
                assert np.isfinite(mutant.explain(PICTURE, budget=1, batch_size=1).maps).all()
    except OrtcamError as error:
        line = str(error)
        line.encode()
        assert "\n" not in line
        assert len(line) < 2000
        return line
    assert probabilities.shape == (len(mutant.labels),)
    assert np.isfinite(probabilities).all()
    if (manifest.preprocessing, manifest.activation) == (told.preprocessing, told.activation):
        np.testing.assert_allclose(probabilities, good.predict(PICTURE), rtol=1e-5, atol=1e-7)
    return None


@pytest.mark.sample(every=12)
@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_an_entry_of_any_other_value_is_refused_or_does_no_harm(
    base: Path, good: ortcam.Explainer, path: tuple[object, ...]
) -> None:
    worked = 0
    for value in VALUES:
        manifest = copy.deepcopy(MANIFEST)
        holder_of(manifest, path)[path[-1]] = value
        try:
            text = json.dumps(manifest)
        except ValueError:  # more digits than Python writes by itself
            manifest = copy.deepcopy(MANIFEST)
            holder_of(manifest, path)[path[-1]] = "HUGE"
            text = json.dumps(manifest).replace('"HUGE"', "-" * (value < 0) + "1" + "0" * 4000)
        worked += outcome(base, text, good) is None
    assert worked < len(VALUES)  # nothing at all is accepted for any entry


@pytest.mark.sample(every=6)
@pytest.mark.parametrize("path", [path for path in LEAVES if isinstance(path[-1], str)], ids=str)
def test_an_entry_that_is_missing_or_comes_twice_is_refused(
    base: Path, good: ortcam.Explainer, path: tuple[object, ...]
) -> None:
    manifest = copy.deepcopy(MANIFEST)
    holder = holder_of(manifest, path)
    value = holder.pop(path[-1])
    missing = outcome(base, json.dumps(manifest), good)
    assert missing is not None or path[:-1] in (("versions",), ("files",), ("graphs", "scorers"))
    holder["TWICE"] = holder[path[-1]] = value
    text = json.dumps(manifest).replace('"TWICE"', json.dumps(path[-1]))
    assert "comes twice" in str(outcome(base, text, good))


@pytest.mark.sample(every=5)
@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "{}", "1", '"x"', "{", "[" * 100_000, '{"schema":' * 100_000),
        *(
            '{"schema": ' + value + "}"
            for value in ("3", "1e3", "[" * 500 + "]" * 500, '{"a":' * 400 + "1" + "}" * 400)
        ),
        *('{"schema": 3, "labels": ' + value + "}" for value in ("[" * 90 + "]" * 90, "[" * 300 + "]" * 300)),
        *('{"schema": ' + value + "}" for value in ("9" * 4000, "9" * 5000, "-" + "9" * 4000, "1e999", "NaN")),
        json.dumps(MANIFEST).encode("utf-16"),
        json.dumps(MANIFEST).encode("utf-32"),
        json.dumps(MANIFEST).replace("shuffle", "shu\ud800").encode("utf-8", "surrogatepass"),
        b"\xff\xfe\xfd",
        b"\x80" * 100,
        b" " * (2**23 + 1),
        json.dumps(MANIFEST).encode() + b" " * 2**23,
        b'{"schema": 3, "labels": [' + b"[]," * 500_000 + b"1]}",
        b'{"schema": 3, ' + b"".join(b'"%d":1,' % number for number in range(200_000)) + b'"199999":1}',
    ],
    ids=lambda text: repr(text[:40]),
)
def test_a_text_that_is_no_manifest_is_refused(base: Path, good: ortcam.Explainer, text: str | bytes) -> None:
    assert outcome(base, text, good) is not None


def test_numbers_of_entries_are_bounded(base: Path, good: ortcam.Explainer) -> None:
    name, record = next(iter(MANIFEST["files"].items()))
    many = [
        {"labels": ["x"] * 100_001},
        {"files": MANIFEST["files"] | {f"{number}": record for number in range(1001)}},
        {"graphs": MANIFEST["graphs"] | {"scorers": {f"{number}": name for number in range(101)}}},
        {"versions": {f"{number}": "" for number in range(1001)}},
    ]
    for change in many:
        assert "entries; accepted are" in str(outcome(base, json.dumps(MANIFEST | change), good))


def test_a_schema_error_says_what_is_accepted_in_words(base: Path, good: ortcam.Explainer) -> None:
    assert "labels is 'x'; accepted: a list" in str(outcome(base, json.dumps(MANIFEST | {"labels": "x"}), good))
    assert "opset is 'x'; accepted: a whole number" in str(outcome(base, json.dumps(MANIFEST | {"opset": "x"}), good))
    assert "files is []; accepted: an object" in str(outcome(base, json.dumps(MANIFEST | {"files": []}), good))


@pytest.mark.sample(every=2)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders")
@pytest.mark.parametrize("name", [MANIFEST_NAME, "weights.bin", "head.onnx", "probe.npy"])
def test_what_is_no_regular_file_is_refused(bundle: Path, name: str) -> None:
    for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)):
        if (bundle / name).is_dir() and not (bundle / name).is_symlink():
            (bundle / name).rmdir()
        else:
            (bundle / name).unlink(missing_ok=True)
        make(bundle / name)
        for read in (ortcam.load, read_bundle):
            refusal(lambda read=read: read(bundle))


def test_names_that_no_file_system_takes_are_refused(base: Path, good: ortcam.Explainer) -> None:
    record = MANIFEST["files"]["weights.bin"]
    for name in ("x" * 256, "é" * 200, "a\nb", "a\x7f", "x*", "_ORT_MEM_ADDR_", "a" * 5000):
        assert outcome(base, json.dumps(MANIFEST | {"files": MANIFEST["files"] | {name: record}}), good)


# Probes --------------------------------------------------------------------------------------------------------------


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickle-was-run",)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(text: bytes, version: bytes = b"\x01\x00") -> bytes:
    size = len(text) + 1
    return b"\x93NUMPY" + version + size.to_bytes(2 if version[0] == 1 else 4, "little") + text + b"\n"


LOGITS = np.load(bundle_path() / "probe-logits.npy")
SHAPE = str(LOGITS.shape).encode()
HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': %b, }"
BROKEN_LOGITS = {
    "pickle": npy(np.array([Trap()], object)),
    "huge shape": npy_header(HEADER % b"(1000000, 1000000, 1000000)"),
    "overflowing shape": npy_header(HEADER % (b"(" + b"9" * 400 + b",)")),
    "negative shape": npy_header(HEADER % b"(-1, 7)"),
    "nested": npy_header(b"(" * 5000, b"\x02\x00"),
    "brackets": npy_header(
        b"{'descr': " + b"[" * 900 + b"]" * 900 + b", 'fortran_order': False, 'shape': ()}", b"\x02\x00"
    ),
    "open text": npy_header(b"{'descr': '<f4"),
    "open bracket": npy_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L,"),
    "expression": npy_header(HEADER % b"(9**9**9,)"),
    "no text": npy_header(b"\x80\x81\xff"),
    "longest header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + HEADER % SHAPE,
    "header beyond the end": b"\x93NUMPY\x01\x00\xff\xff" + HEADER % SHAPE + b"\n",
    "version 9": npy_header(HEADER % SHAPE, b"\x09\x00"),
    "no bytes": b"",
    "magic alone": b"\x93NUMPY",
    "truncated": npy(LOGITS)[:-1],
    "longer": npy(LOGITS) + b"\0",
    "of another type": npy(LOGITS.astype(np.float64)),
    "of another order": npy(LOGITS.astype(">f4")),
    "of another shape": npy(LOGITS.T),
    "structured": npy(np.zeros(3, [("a", "f4")])),
    "texts": npy(np.full(LOGITS.shape, "x")),
    "not a number": npy(np.where(np.arange(CLASSES) == 1, np.nan, LOGITS)),
    "infinite": npy(np.where(np.arange(CLASSES) == 1, np.inf, LOGITS)),
    "archive": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.sample(every=5)
@pytest.mark.parametrize("what", BROKEN_LOGITS)
def test_a_broken_probe_is_refused_and_never_run(
    bundle: Path, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("probe-logits.npy", "probe.npy"):
        shutil.copy(bundle_path() / "probe-logits.npy", bundle / "probe-logits.npy")
        (bundle / name).write_bytes(BROKEN_LOGITS[what])
        reseal(bundle)
        opened = read_bundle(bundle)
        assert name in refusal(lambda opened=opened: verify(opened))
        assert verify_variants(opened) == {}
    assert not (tmp_path / "pickle-was-run").exists()


def test_a_good_probe_is_read_as_numpy_reads_it(bundle: Path) -> None:
    expected = verify(read_bundle(bundle_path()))
    for order in (np.ascontiguousarray, np.asfortranarray):
        (bundle / "probe-logits.npy").write_bytes(npy(order(LOGITS)))
        (bundle / "probe.npy").write_bytes(npy(order(np.load(bundle_path() / "probe.npy"))))
        reseal(bundle)
        assert verify(read_bundle(bundle)).logits == expected.logits


# Inputs --------------------------------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
import numpy as np
import ortcam
explainer = ortcam.load(sys.argv[1], threads=1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
try:
    explainer.predict(np.zeros((60, 60, 3), np.uint8))
except ortcam.OutOfMemoryError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_input_that_does_not_fit_into_memory_is_an_error_of_ours(bundle: Path) -> None:
    """As large as a manifest may have it, 0.8 GB, of a graph that takes any size."""
    model = onnx.load(bundle / "features.onnx", load_external_data=False)
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_param = "any"
    put(bundle, model, "features.onnx")
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    for name in bundle.glob("scorer-*.onnx"):
        scorer = onnx.load(name, load_external_data=False)
        for value in (*scorer.graph.input, *scorer.graph.output):
            if len(value.type.tensor_type.shape.dim) > 2:
                value.type.tensor_type.ClearField("shape")
        name.write_bytes(scorer.SerializeToString())
    manifest["preprocessing"] |= {"height": 8192, "width": 8192}
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))
    reseal(bundle)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(bundle)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout.startswith("refused: out of memory: the model's input is 8192 x 8192 pixels"), done.stderr


# Links ---------------------------------------------------------------------------------------------------------------


def test_a_volume_of_kubernetes_is_a_bundle_and_a_switch_under_it_changes_nothing(tmp_path: Path) -> None:
    """Files are links into `..data`, a link to the folder of a version, which is switched."""
    volume = tmp_path / "volume.ortcam"
    volume.mkdir()
    for version in ("..2026_01", "..2026_02"):
        shutil.copytree(bundle_path(), volume / version)
    (volume / "..2026_02" / "head.onnx").write_bytes(OUTPUTS["more classes"].SerializeToString())
    reseal(volume / "..2026_02")
    (volume / "..data").symlink_to("..2026_01")
    for file in sorted((volume / "..2026_01").iterdir()):
        (volume / file.name).symlink_to(Path("..data", file.name))
    explainer = ortcam.load(volume)
    expected = ortcam.load(bundle_path()).predict(PICTURE)
    (volume / "..new").symlink_to("..2026_02")
    (volume / "..new").replace(volume / "..data")
    np.testing.assert_array_equal(explainer.predict(PICTURE), expected)
    shutil.rmtree(volume / "..2026_01")
    assert np.isfinite(explainer.explain(PICTURE, budget=1, batch_size=1).maps).all()
    refusal(lambda: ortcam.load(volume).predict(PICTURE))
