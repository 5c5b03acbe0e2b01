"""An `.onnx` file that cannot be explained gets one line that says why, exit code 2, and nothing is written."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.export.sources.test_onnx_files import flags
from tests.export.zoo import ZOO
from tests.export.zoo.contents import looped
from tests.export.zoo.endings import ending
from tests.export.zoo.graphs import (
    CLASSES,
    HEIGHT,
    LABELS,
    WIDTH,
    GraphBuilder,
    InputForm,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.plain import plain

from ortcam.cli import main
from ortcam_export import ExportError, export

ARGUMENTS: dict[str, Any] = InputForm().arguments() | {"labels": list(LABELS)}

# A file, and the arguments that differ from ARGUMENTS; None takes one away.
Case = Callable[[Path], tuple[Path, dict[str, Any]]]

CASES: dict[str, tuple[Case, str]] = {}


def refused(message: str) -> Callable[[Case], Case]:
    """Enter a file that has to be refused with this message (a regular expression)."""

    def enter(case: Case) -> Case:
        CASES[case.__name__] = case, message
        return case

    return enter


# Not a classifier of images ------------------------------------------------------------------------------------------


@refused(r"--model-output.*boxes.*scores|boxes.*scores.*--model-output")
def detector(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    maps = g.features("image")
    g.op("Reshape", g.conv(maps, 16, 4, kernel=1), g.constant([0, -1, 4]), out="boxes")
    g.op("Sigmoid", g.op("Reshape", g.conv(maps, 16, 9, kernel=1), g.constant([0, -1, 9])), out="scores")
    cells = HEIGHT * WIDTH // 16
    outputs = [tensor_info("boxes", ("N", cells, 4)), tensor_info("scores", ("N", cells, 9))]
    return g.save(folder / "net.onnx", [image_info()], outputs), {}


@refused(r"'boxes'.*accepted is \[N,classes\]")
def boxes_of_a_detector(folder: Path) -> tuple[Path, dict[str, Any]]:
    return detector(folder)[0], {"output": "boxes"}


@refused(r"'masks'.*21.*segment.*accepted is \[N,classes\]")
def segmenter(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    small = g.conv(g.features("image"), 16, 21, kernel=1)
    g.op("Resize", small, "", g.constant([1.0, 1.0, 4.0, 4.0], np.float32), mode="linear", out="masks")
    output = tensor_info("masks", ("N", 21, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image_info()], [output]), {"labels": [str(index) for index in range(21)]}


@refused(r"'input_ids'.*int64.*accepted is an image")
def text_model(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    words = g.op("Gather", g.random(100, 16), "input_ids", axis=0)
    g.dense(g.op("ReduceMean", words, axes=[1], keepdims=0), out="logits")
    return g.save(folder / "net.onnx", [tensor_info("input_ids", ("N", "T"), np.int64)], [classes_info("logits")]), {}


@refused(r"no spatial tensor|nothing to explain")
def no_maps(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.dense(g.op("Flatten", "image"), 3 * HEIGHT * WIDTH, out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"'image'.*1,48,64.*accepted is an image of 3 channels")
def grayscale(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Relu", g.conv("image", 1, 16, stride=4)), out="logits")
    image = tensor_info("image", ("N", 1, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image], [classes_info("logits")]), {}


@refused(r"4,48,64.*accepted is an image of 3 channels")
def four_channels(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Relu", g.conv("image", 4, 16, stride=4)), out="logits")
    image = tensor_info("image", ("N", 4, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image], [classes_info("logits")]), {}


@refused(r"'video'.*accepted is an image")
def video(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.op("Relu", g.conv(g.op("ReduceMean", "video", axes=[2], keepdims=0), 3, 16, stride=4))
    g.head(x, out="logits")
    return g.save(folder / "net.onnx", [tensor_info("video", ("N", 3, 8, HEIGHT, WIDTH))], [classes_info("logits")]), {}


@refused(r"'left'.*'right'.*accepted is one image")
def two_images(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.features(g.op("Sub", "left", "right")), out="logits")
    return g.save(folder / "net.onnx", [image_info("left"), image_info("right")], [classes_info("logits")]), {}


@refused(r"'threshold'.*accepted is one image")
def second_input_that_counts(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Max", g.features("image"), "threshold"), out="logits")
    return g.save(folder / "net.onnx", [image_info(), tensor_info("threshold", ())], [classes_info("logits")]), {}


@refused(r"batch size is fixed at 8")
def batch_of_8(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder, batch=8), {}


@refused(r"batch|images")
def batch_averaged(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.pooled(g.features("image"))
    g.dense(g.op("ReduceMean", x, axes=[0], keepdims=1), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits", batch=1)]), {}


@refused(r"nan|finite|differs")
def weights_that_are_not_numbers(folder: Path) -> tuple[Path, dict[str, Any]]:
    def spoil(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.dims == [CLASSES]:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(CLASSES, np.nan, np.float32), tensor.name))

    return plain(folder, edit=spoil), {}


# Probabilities that would not be the file's ---------------------------------------------------------------------------


@refused(r"net\.onnx.*Softmax at its end.*over all classes")
def softmax_over_the_batch(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ending(folder, "softmax", lambda g, x: g.op("Softmax", x, axis=0, out="scores")).path, {}


@refused(r"Softmax at its end.*over all classes")
def softmax_over_groups_of_classes(folder: Path) -> tuple[Path, dict[str, Any]]:
    def tail(g: GraphBuilder, x: str) -> None:
        groups = g.op("Softmax", g.op("Reshape", x, g.constant([-1, 2, 3])), axis=2)
        g.op("Reshape", groups, g.constant([-1, 6]), out="scores")

    return ending(folder, "softmax", tail, outputs=6).path, {"labels": list("abcdef")}


@refused(r"Softmax at its end.*over all classes")
def softmax_over_an_axis_of_size_1(folder: Path) -> tuple[Path, dict[str, Any]]:
    def tail(g: GraphBuilder, x: str) -> None:
        g.op("Flatten", g.op("Softmax", x, axis=-1), axis=1, out="scores")

    return ending(folder, "softmax", tail, pooled=True).path, {}


@refused(r"--activation sigmoid.*softmax")
def softmax_that_the_user_calls_sigmoid(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["ends_in_softmax"](folder).path, {"activation": "sigmoid"}


@refused(r"--activation sigmoid.*softmax")
def softmax_spelled_out_that_the_user_calls_sigmoid(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["ends_in_softmax_spelled_out"](folder).path, {"activation": "sigmoid"}


@refused(r"between 0 and 1.*Reciprocal")
def sigmoid_spelled_out(folder: Path) -> tuple[Path, dict[str, Any]]:
    def tail(g: GraphBuilder, x: str) -> None:
        g.op("Reciprocal", g.op("Add", g.op("Exp", g.op("Neg", x)), g.constant(1.0)), out="scores")

    return ending(folder, "sigmoid", tail).path, {"activation": "sigmoid"}


@refused(r"between 0 and 1.*HardSigmoid")
def hard_sigmoid(folder: Path) -> tuple[Path, dict[str, Any]]:
    file = ending(folder, "sigmoid", lambda g, x: g.op("HardSigmoid", x, out="scores"))
    return file.path, {"activation": "sigmoid"}


@refused(r"'label'.*int64.*floating")
def classes_that_are_no_numbers(folder: Path) -> tuple[Path, dict[str, Any]]:
    said = {"output": "label", "activation": "sigmoid", "labels": ["class"]}
    return ZOO["label_and_probabilities"](folder).path, said


@refused(r"\[5,N\].*accepted is \[N,classes\]")
def images_behind_the_classes(folder: Path) -> tuple[Path, dict[str, Any]]:
    tail: Callable[[GraphBuilder, str], object] = lambda g, x: g.op("Transpose", x, perm=[1, 0], out="scores")  # noqa: E731
    return ending(folder, "logits", tail, shape=(CLASSES, "N")).path, {}


@refused(r"Dropout.*training mode")
def dropout_in_training_mode(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Dropout", g.features("image"), g.constant(0.5), g.constant(True)), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"BatchNormalization.*training mode")
def batch_normalisation_in_training_mode(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.batch_norm(g.conv("image", 3, 16, stride=4), 16)
    g.nodes[-1].attribute.append(helper.make_attribute("training_mode", 1))
    g.nodes[-1].output.extend(["mean", "variance"])
    g.head(g.op("Relu", x), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"differ.*run again")
def noise_inside(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    maps = g.features("image")
    g.head(g.op("Add", maps, g.op("RandomNormalLike", maps)), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"differ.*another beside it")
def images_that_weigh_each_other(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The shapes do not tell: a softmax over the batch keeps them."""
    g = GraphBuilder()
    g.head(g.op("Softmax", g.features("image"), axis=0), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"Loop.*cannot be opened.*open batch")
def batch_of_1_in_a_loop(folder: Path) -> tuple[Path, dict[str, Any]]:
    return looped(folder, batch=1), {}


@refused(r"no bundle can be made of this model: features\.onnx: node .* is of 'Loop'.*accepted is a graph of plain")
def a_loop(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Of three turns; bundles have none, since their reader cannot tell how long others would run."""
    return looped(folder), {}


# Operators -----------------------------------------------------------------------------------------------------------


@refused(r"my\.operators.*Fancy")
def custom_operator(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Fancy", g.features("image"), domain="my.operators"), out="logits")
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], domains={"my.operators": 1})
    return path, {}


@refused(r"Fancy")
def operator_that_onnx_does_not_have(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Fancy", g.features("image")), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"GRUUnit, which ONNX Runtime keeps for old files, is not supported")
def operator_that_onnx_runtime_keeps_for_old_files(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder(opset=9)
    x = g.pooled(g.features("image"))
    g.dense(g.op("GRUUnit", x, x, x, x), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"no batch dimension, and Mul .* cannot be given one; accepted is an image \[N,3,H,W\]")
def an_image_without_a_batch_and_its_grey_one(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.op("Mul", "image", g.op("ReduceMean", "image", axes=[0], keepdims=0))
    g.head(g.features(g.axes("Unsqueeze", x, [0])), out="logits")
    image = tensor_info("image", (3, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image], [classes_info("logits", batch=1)]), {}


@refused(r"no batch dimension, and LayerNormalization .* cannot be given one; accepted is an image \[N,3,H,W\]")
def an_operator_on_an_image_without_a_batch(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.op("LayerNormalization", "image", g.constant(np.ones(WIDTH)), axis=-1)
    g.head(g.features(g.axes("Unsqueeze", x, [0])), out="logits")
    image = tensor_info("image", (3, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image], [classes_info("logits", batch=1)]), {}


@refused(r"cannot be read as ONNX.*(index|indices|bounds)")
def sparse_weights_that_lie_outside(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = ZOO["sparse_weights"](folder).path
    model = onnx.load(path)
    (sparse,) = model.graph.sparse_initializer
    places = onnx.numpy_helper.to_array(sparse.indices).copy()
    places[-1] = 10**6
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(places, sparse.indices.name))
    path.write_bytes(model.SerializeToString())
    return path, {}


@refused(r"its input is int8, pixels less 128; --mean does not go with it")
def statistics_for_an_input_of_signed_bytes(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["int8_pixels_of_tflite"](folder).path, {}


@refused(r"com\.microsoft\.nchwc.*accepted is the file")
def laid_out_for_a_processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    domain = "com.microsoft.nchwc"
    maps = g.op("ReorderInput", g.features("image"), domain=domain)
    g.head(g.op("ReorderOutput", maps, domain=domain, channels=16), out="logits")
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], domains={domain: 1})
    return path, {}


@refused(r"'inside'.*Loop")
def layer_in_a_loop(folder: Path) -> tuple[Path, dict[str, Any]]:
    return looped(folder), {"layer": "inside"}


# What only the user can say ------------------------------------------------------------------------------------------


@refused(r"^(?!.*--labels)(?=.*--preset NAME)(?=.*--mean)(?=.*--std)")
def nothing_said(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"mean": None, "std": None, "channel_order": None, "labels": None}


@refused(r"^(?!.*--mean).*--std R,G,B")
def std_not_said(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"std": None}


@refused(r"uint8.*--mean")
def statistics_for_an_input_of_bytes(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["uint8_of_batch_1_normalised_inside"](folder).path, {}


@refused(r"4 labels.*5 classes")
def labels_too_few(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"labels": ["a", "b", "c", "d"]}


@refused(r"'nonsense'.*maps.*embedding.*logits")
def output_that_is_not_there(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["several_outputs"](folder).path, {"output": "nonsense"}


@refused(r"--model-output.*maps.*embedding.*logits|maps.*embedding.*logits.*--model-output")
def several_outputs_and_none_named(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["several_outputs"](folder).path, {}


@refused(r"(?=.*one logit)(?=.*--activation sigmoid)")
def one_logit_with_softmax(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["ends_in_one_logit_without_an_axis"](folder).path, {"labels": ["defect"]}


@refused(r"--input-size")
def open_size_not_said(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["open_image_size"](folder).path, {}


@refused(r"--input-size.*32.*48.*64")
def size_that_contradicts_the_graph(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"input_size": (32, 32)}


@refused(r"--input-layout")
def layout_that_cannot_be_told(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["nhwc_that_its_shape_does_not_tell"](folder).path, {}


@refused(r"--input-layout nhwc")
def layout_that_contradicts_the_graph(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"input_layout": "nhwc"}


# Files that are broken or reach outside their folder -----------------------------------------------------------------


@refused(r"net\.onnx.*cannot be read as ONNX")
def truncated(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = plain(folder)
    path.write_bytes(path.read_bytes()[:-500])
    return path, {}


@refused(r"net\.onnx.*cannot be read as ONNX")
def empty(folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "net.onnx").write_bytes(b"")
    return folder / "net.onnx", {}


@refused(r"net\.onnx.*cannot be read as ONNX")
def text(folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "net.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    return folder / "net.onnx", {}


@refused(r"net\.onnx.*cannot be read as ONNX: Relu reads 'nothing'")
def tensor_that_nothing_makes(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Relu", "nothing", out="maps"), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"missing\.onnx: no such file")
def missing(folder: Path) -> tuple[Path, dict[str, Any]]:
    return folder / "missing.onnx", {}


@refused(r"net\.onnx\.data.*missing")
def weights_missing(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = ZOO["external_data"](folder).path
    (folder / "net.onnx.data").unlink()
    return path, {}


@refused(r"net\.onnx\.data.*truncated")
def weights_truncated(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = ZOO["external_data"](folder).path
    data = folder / "net.onnx.data"
    data.write_bytes(data.read_bytes()[:-64])
    return path, {}


def elsewhere(folder: Path, location: str) -> Path:
    """The file with its weights at another place, which exists."""
    inner = folder / "inner"
    inner.mkdir()
    path = ZOO["external_data"](inner).path
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    (inner / "net.onnx.data").rename(folder / "outside.data")
    return path


@refused(r"outside\.data.*(outside|folder)")
def weights_above_the_folder(folder: Path) -> tuple[Path, dict[str, Any]]:
    return elsewhere(folder, "../outside.data"), {}


@refused(r"outside\.data.*(outside|folder)")
def weights_at_an_absolute_path(folder: Path) -> tuple[Path, dict[str, Any]]:
    return elsewhere(folder, str(folder / "outside.data")), {}


@refused(r"outside\.data.*(outside|folder)")
def weights_of_a_constant_above_the_folder(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = elsewhere(folder, "../outside.data")
    model = onnx.load(path, load_external_data=False)
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes = [*constants, *model.graph.node]
    for field in ("initializer", "node"):
        model.graph.ClearField(field)
    model.graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString())
    return path, {}


@refused(r"link\.data.*(outside|folder|link)")
def weights_behind_a_link(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = elsewhere(folder, "link.data")
    (folder / "inner" / "link.data").symlink_to(folder / "outside.data")
    return path, {}


def test_a_file_with_any_bytes_changed_is_exported_or_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, destination = plain(tmp_path), tmp_path / "b.ortcam"
    content = path.read_bytes()
    weights = [tensor.raw_data for tensor in onnx.load(path).graph.initializer if len(tensor.raw_data) > 64]
    inside = {place + index for data in weights for place in [content.find(data)] for index in range(len(data))}
    structure = [index for index in range(len(content)) if index not in inside]
    generator = np.random.default_rng(0)
    messages = []
    for number in range(60):
        changed = bytearray(content)
        for index in generator.choice(structure, 1 + number % 3):
            changed[index] = generator.integers(256)
        path.write_bytes(changed[: generator.integers(len(changed))] if number % 10 == 0 else changed)
        try:
            export(path, destination, force=True, **ARGUMENTS)
        except ExportError as error:
            messages.append(str(error))
        assert [item for item in tmp_path.iterdir() if item not in (path, destination)] == []
    assert 0 < len(messages) < 60, "some are refused, some are not"
    assert [message for message in messages if len(message.splitlines()) != 1 or len(message) > 1000] == []
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


@pytest.mark.sample(every=4)
@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_line_and_nothing_is_written(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case, message = CASES[name]
    (tmp_path / "model").mkdir()
    path, changes = case(tmp_path / "model")
    arguments = {key: value for key, value in (ARGUMENTS | changes).items() if value is not None}
    (tmp_path / "out").mkdir()
    said = flags(arguments, tmp_path)
    before = sorted(item for item in tmp_path.rglob("*"))

    with pytest.raises(ExportError) as error:
        export(path, tmp_path / "out" / "b.ortcam", **arguments)
    assert re.search(message, str(error.value)), error.value
    assert len(str(error.value).splitlines()) == 1

    capfd.readouterr()
    assert main(["export", str(path), "-o", str(tmp_path / "out" / "b.ortcam"), *said]) == 2
    printed = capfd.readouterr()
    complaints = [line for line in printed.err.splitlines() if line.startswith("ortcam: ")]
    assert len(complaints) == 1
    assert re.search(message, complaints[0].removeprefix("ortcam: ")), complaints
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert sorted(item for item in tmp_path.rglob("*")) == before
