"""Files that a graph names: none but those that are listed, whatever protobuf and a reader see differently."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tests.hostile.bundles.graphs import CLASSES, PLACE, PLACES, SIZES, constant, elsewhere, head, look, put, refusal

import ortcam
from ortcam.bundle import read_bundle
from ortcam.bundle.graph_contents import GraphReader
from ortcam.errors import BundleError


@pytest.mark.sample(every=4)
@pytest.mark.whole
@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_names_no_file_that_is_not_listed_wherever_it_is(bundle: Path, place: str) -> None:
    (bundle.parent / "secret.bin").write_bytes(bytes(range(64)))
    put(bundle, PLACES[place]("../secret.bin"))
    for read in (ortcam.load, read_bundle, lambda path: ortcam.load(path, low_memory=True)):
        refusal(lambda read=read: read(bundle))


@pytest.mark.sample(every=4)
@pytest.mark.whole
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


@pytest.mark.slow
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
