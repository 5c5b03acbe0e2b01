"""Outputs that are values: the graph gives those of the original, flat, and the manifest their shape."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tests.export.zoo.graphs import HEIGHT, WIDTH, GraphBuilder, image_info, tensor_info

from ortcam.cli import main
from ortcam.images.preprocessing import Preprocessing
from ortcam_export.errors import ExportError
from ortcam_export.sources.conversion import convert
from ortcam_export.sources.converted import run_whole
from ortcam_export.sources.onnx_files.adapting import adapt
from ortcam_export.sources.onnx_files.reading import read_onnx
from ortcam_export.sources.opening import open_source
from ortcam_export.sources.pytorch.outputs import LogitsOf, as_classifier, output_shape
from ortcam_export.sources.types import InputSpec

ONE = Preprocessing(HEIGHT, WIDTH, None, (0.0,) * 3, (1.0,) * 3, "bilinear")
SPEC = InputSpec(mean=(0.0,) * 3, std=(1.0,) * 3, activation="identity")
# Sums of 144 products of values of the order of 1 in float32, in another order.
TOLERANCE = 1e-4
MAPS = (HEIGHT // 4, WIDTH // 4)


def regression(g: GraphBuilder, maps: str) -> None:
    g.head(maps, 1, out="values")


def embedding(g: GraphBuilder, maps: str) -> None:
    g.head(maps, 7, out="values")


def unflattened_embedding(g: GraphBuilder, maps: str) -> None:
    g.op("GlobalAveragePool", maps, out="values")


def segmentation(g: GraphBuilder, maps: str) -> None:
    scores = g.conv(maps, 16, 3, kernel=1)
    g.op("Resize", scores, "", g.constant([1, 1, 2, 2], np.float32), mode="linear", out="values")


def boxes(g: GraphBuilder, maps: str, *, batch: int = 0) -> None:
    """[N,4 + 2,boxes], as a YOLO's head gives them."""
    both = g.op("Concat", g.conv(maps, 16, 4, kernel=1), g.op("Sigmoid", g.conv(maps, 16, 2, kernel=1)), axis=1)
    g.op("Reshape", both, g.constant(np.array([batch, 6, MAPS[0] * MAPS[1]], np.int64)), out="values")


KINDS: dict[str, tuple[Callable[..., None], tuple[int, ...], tuple[int, ...]]] = {
    "regression": (regression, (1,), (1,)),
    "embedding": (embedding, (7,), (7,)),
    "unflattened embedding": (unflattened_embedding, (16, 1, 1), (16,)),
    "segmentation": (segmentation, (3, 2 * MAPS[0], 2 * MAPS[1]), (3, 2 * MAPS[0], 2 * MAPS[1])),
    "boxes": (boxes, (6, MAPS[0] * MAPS[1]), (6, MAPS[0] * MAPS[1])),
}


def made(folder: Path, kind: str, batch: int | str) -> Path:
    g = GraphBuilder()
    maps = g.features("image")
    build, shape, _ = KINDS[kind]
    build(g, maps, **({"batch": 1} if kind == "boxes" and batch == 1 else {}))
    return g.save(folder / "net.onnx", [image_info(batch=batch)], [tensor_info("values", (batch, *shape))])


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3, HEIGHT, WIDTH)).astype(np.float32)


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_gives_the_values_of_the_file_flat(kind: str, batch: int | str, tmp_path: Path) -> None:
    path = made(tmp_path, kind, batch)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"image": image[None]})[0].reshape(1, -1) for image in images()])

    adapted = adapt(read_onnx(path, activation="identity"), ONE)
    assert adapted.output_shape == KINDS[kind][2]
    np.testing.assert_allclose(run_whole(adapted.model, images()), expected, rtol=0, atol=TOLERANCE)


def test_values_between_0_and_1_and_a_softmax_at_the_end_stay_as_they_are(tmp_path: Path) -> None:
    g = GraphBuilder()
    g.op("Softmax", g.head(g.features("image"), 4), axis=1, out="values")
    path = g.save(tmp_path / "net.onnx", [image_info()], [tensor_info("values", ("N", 4))])
    converted = convert(open_source(path, spec=SPEC), opset=20, activation="identity")
    np.testing.assert_allclose(converted.logits.sum(axis=1), 1, atol=1e-5)
    assert (converted.activation, converted.output_shape, converted.has_classes) == ("identity", (4,), True)


@pytest.mark.parametrize("batch", ["N", 1])
def test_images_behind_the_steps_of_a_recurrent_layer_come_in_front(batch: int | str, tmp_path: Path) -> None:
    """[steps,N,values] of readers of text; the declared shape may be wrong, as those of exporters are."""
    g = GraphBuilder()
    rows = g.op("ReduceMean", g.features("image"), axes=[2], keepdims=0)
    steps = g.op("Transpose", rows, perm=[2, 0, 1])
    g.op("MatMul", steps, g.random(16, 5), out="values")
    path = g.save(tmp_path / "net.onnx", [image_info(batch=batch)], [tensor_info("values", (MAPS[1], batch, 5))])
    file = read_onnx(path, activation="identity")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"image": image[None]})[0].reshape(1, -1) for image in images()])
    np.testing.assert_allclose(file.logits(images(), together=batch == "N"), expected, rtol=0, atol=TOLERANCE)
    adapted = adapt(file, ONE)
    assert adapted.output_shape == (MAPS[1], 5)
    np.testing.assert_allclose(run_whole(adapted.model, images()), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["segmentation", "boxes"])
def test_without_identity_the_error_says_what_works(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"accepted is \[N,classes\]; `--activation identity` takes its values, and"):
        read_onnx(made(tmp_path, kind, "N"))


def with_suppression(folder: Path) -> Path:
    """Boxes and scores [1,4 + 2,boxes], of which NonMaxSuppression picks as many as the image has."""
    g = GraphBuilder()
    maps = g.features("image")
    boxes(g, maps, batch=1)
    axes = g.constant(np.array([1], np.int64))
    corners, scores = (
        g.op("Slice", "values", *(g.constant(np.array([side], np.int64)) for side in sides), axes)
        for sides in ((0, 4), (4, 6))
    )
    most = g.constant(np.array([10], np.int64))
    picked = g.op("NonMaxSuppression", g.op("Transpose", corners, perm=[0, 2, 1]), scores, most)
    g.op("Cast", picked, to=1, out="detections")
    return g.save(folder / "net.onnx", [image_info(batch=1)], [tensor_info("detections", ("boxes", 3))])


@pytest.mark.parametrize("activation", [None, "identity"])
def test_boxes_that_are_picked_are_refused_with_the_tensor_in_front(activation: Any, tmp_path: Path) -> None:
    path = with_suppression(tmp_path)
    message = r"as long as the image says, since NonMaxSuppression .* `--activation identity --model-output values`"
    with pytest.raises(ExportError, match=message):
        read_onnx(path, activation=activation)
    # And what the message says works.
    file = read_onnx(path, activation="identity", output="values")
    expected = onnx.shape_inference.infer_shapes(onnx.load(path))
    assert any(value.name == "values" for value in expected.graph.value_info)
    assert adapt(file, ONE).output_shape == KINDS["boxes"][2]


def test_one_of_several_outputs_is_named(tmp_path: Path) -> None:
    g = GraphBuilder()
    maps = g.features("image")
    g.head(maps, 7, out="embedding")
    g.conv(maps, 16, 3, kernel=1)
    g.op("Identity", g.nodes[-1].output[0], out="maps")
    outputs = [tensor_info("embedding", ("N", 7)), tensor_info("maps", ("N", 3, *MAPS))]
    path = g.save(tmp_path / "net.onnx", [image_info()], outputs)
    with pytest.raises(
        ExportError, match=rf"--model-output; its outputs are 'embedding' float \[N,7\], 'maps' float \[N,3,{MAPS[0]},"
    ):
        read_onnx(path, activation="identity")
    assert adapt(read_onnx(path, activation="identity", output="maps"), ONE).output_shape == (3, *MAPS)
    with pytest.raises(ExportError, match="no output 'embeding'; did you mean 'embedding'"):
        read_onnx(path, activation="identity", output="embeding")


class Several(torch.nn.Module):
    """Maps, their mean, and both once more inside a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor) -> dict[str, Any]:
        maps = self.conv(image)
        return {"maps": maps, "mean": maps.mean((1, 2, 3)), "rest": (maps.flatten(2), [maps.mean((2, 3), True)])}


@pytest.mark.parametrize(
    ("output", "shape"), [("maps", (4, 6, 6)), ("mean", (1,)), ("rest.0", (4, 36)), ("rest.1.0", (4,))]
)
def test_an_output_of_a_module_is_taken_as_it_is(output: str, shape: tuple[int, ...]) -> None:
    module = Several().eval()
    values = as_classifier(module, height=8, width=8, output=output, raw=True)
    batch = torch.rand(3, 3, 8, 8)
    given = values(batch)
    assert isinstance(values, LogitsOf)
    assert output_shape(values, given.shape[1]) == shape
    assert given.shape == (3, int(np.prod(shape)))
    expected: Any = module(batch)
    for key in output.split("."):
        expected = expected[int(key) if key.isdecimal() else key]
    torch.testing.assert_close(given, expected.reshape(3, -1), rtol=0, atol=0)


def test_a_module_of_several_outputs_is_refused_with_their_shapes() -> None:
    with pytest.raises(
        ExportError,
        match=r"maps: \[N,4,6,6\], mean: \[N\], rest: tuple of 0: \[N,4,36\], .* --model-output maps takes one",
    ):
        as_classifier(Several().eval(), height=8, width=8, output=None, raw=True)
    with pytest.raises(ExportError, match=r"--model-output rest.2: the model returns .*; accepted is one of these"):
        as_classifier(Several().eval(), height=8, width=8, output="rest.2", raw=True)
    with pytest.raises(ExportError, match=r"\[N,4,6,6\], as a segmentation .*; `--activation identity` takes its"):
        as_classifier(Several().eval(), height=8, width=8, output="maps")


@pytest.mark.long
def test_an_inspection_shows_the_shape_of_a_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made(tmp_path, "segmentation", "N")
    assert main(["inspect", str(path), "--activation", "identity"]) == 0
    said = capsys.readouterr().out
    assert f"output         {[3, 2 * MAPS[0], 2 * MAPS[1]]}: values; `ortcam explain --score 'output[...]'`" in said
    assert "activation     none: the outputs are values" in said
    assert "classes " not in said
    assert main(["inspect", str(path), "--activation", "identity", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["output_shape"], summary["activation"]) == ([3, 2 * MAPS[0], 2 * MAPS[1]], "identity")
