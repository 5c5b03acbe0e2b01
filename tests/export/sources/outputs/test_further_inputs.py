"""Further inputs of a model, fixed to values: what the original gives when it is fed the same."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tests.export.zoo.graphs import HEIGHT, WIDTH, GraphBuilder, classes_info, image_info, tensor_info

from ortcam.images.preprocessing import Preprocessing
from ortcam_export.errors import ExportError
from ortcam_export.sources.converted import run_whole
from ortcam_export.sources.given.fixed_inputs import read_inputs
from ortcam_export.sources.onnx_files.adapting import adapt
from ortcam_export.sources.onnx_files.reading import read_onnx
from ortcam_export.sources.pytorch.arguments import arguments_of
from ortcam_export.sources.pytorch.outputs import LogitsOf, as_classifier

ONE = Preprocessing(HEIGHT, WIDTH, None, (0.0,) * 3, (1.0,) * 3, "bilinear")
METADATA = np.array([[0.5, -1, 2, 3]], np.float32)
# Sums of 20 products of values up to 4 in float32, in another order.
TOLERANCE = 1e-5


def two_inputs(folder: Path, *, batch: int | str = "N", other: int | str | None = None) -> Path:
    """Image and four numbers for each image, joined in front of the classes; a flag that is an integer."""
    g = GraphBuilder()
    joined = g.op("Concat", g.pooled(g.features("image")), "metadata", axis=1)
    scaled = g.op("Mul", g.dense(joined, 20), g.op("Cast", "factor", to=1))
    g.op("Identity", scaled, out="logits")
    first = batch if other is None else other
    inputs = [tensor_info("metadata", (first, 4)), image_info(batch=batch), tensor_info("factor", (), np.int64)]
    return g.save(folder / "two.onnx", inputs, [classes_info("logits", batch=batch)])


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3, HEIGHT, WIDTH)).astype(np.float32)


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("metadata", [METADATA, METADATA[0], METADATA.astype(np.float64), "[0.5, -1, 2, 3]"])
def test_a_graph_gives_what_the_original_gives_with_the_values_fed(
    batch: int | str, metadata: Any, tmp_path: Path
) -> None:
    path = two_inputs(tmp_path, batch=batch)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {"metadata": METADATA, "factor": np.array(3, np.int64)}
    expected = np.concatenate([session.run(None, {**feeds, "image": image[None]})[0] for image in images()])

    file = read_onnx(path, inputs=read_inputs({"metadata": metadata, "factor": 3}))
    np.testing.assert_allclose(file.logits(images(), together=batch == "N"), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(run_whole(adapt(file, ONE).model, images()), expected, rtol=0, atol=TOLERANCE)
    record = file.fixed["metadata"]
    assert (record.dtype, record.shape) == ("float32", (1, 4))
    assert file.fixed["factor"].value is not None
    assert file.fixed["factor"].dtype == "int64"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {},
            r"its inputs are 'metadata' float \[N,4\], 'image' .*, 'factor' int64 \[\]; accepted is one image: fix the",
        ),
        ({"metadata": 1}, r"'factor' int64 \[\]; .* say --input factor=FILE\|VALUE$"),
        ({"metadata": [1, 2], "factor": 1}, r"the value is \[2\], and the input is 'metadata' float \[N,4\]"),
        ({"metadata": np.ones((2, 4)), "factor": 1}, r"the value is \[2, 4\].* for one image"),
        ({"metadata": 1, "factor": 0.5}, "--input factor=0.5: the input is of int64, which does not hold"),
        ({"metdata": 1}, "--input metdata: it has no such input; did you mean 'metadata'"),
        ({"metadata": 1, "factor": 1, "image": 0.5}, "one of them has to be left for the image"),
        ({"metadata": "nothing.npy"}, r"--input metadata=nothing\.npy: no such file"),
        ({"metadata": "much"}, "--input metadata=much: accepted is a number, a list of numbers"),
        ({"metadata": "[[1], [2, 3]]"}, "rows of one length"),
        ({"metadata": float("nan")}, "infinite or not a number"),
        ({"metadata": 1e300, "factor": 1}, "the input is of float32, which does not hold its values"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_inputs_it_could_be_for(
    inputs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        read_onnx(two_inputs(tmp_path), inputs=read_inputs(inputs))
    assert len(str(caught.value).splitlines()) == 1


def test_a_value_comes_from_an_array_in_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", METADATA)
    np.savez(tmp_path / "several.npz", other=np.zeros(3), metadata=METADATA)
    for name in ("one.npy", "several.npz"):
        (given,) = read_inputs({"metadata": str(tmp_path / name)}).values()
        np.testing.assert_array_equal(given.values, METADATA)
        assert given.text is None
    with pytest.raises(ExportError, match="has the arrays other, metadata; accepted is one, or 'mask'"):
        read_inputs({"mask": tmp_path / "several.npz"})
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("0.5")
    for name in ("objects.npy", "text.npy"):
        with pytest.raises(ExportError, match="cannot be read as an array of numbers: it holds Python objects"):
            read_inputs({"metadata": tmp_path / name})


class Joined(torch.nn.Module):
    """Takes the image second, and numbers that it joins to the image's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.linear = torch.nn.Linear(4 + 4, 5)

    def forward(self, metadata: torch.Tensor, image: torch.Tensor, power: int = 1) -> torch.Tensor:
        pooled = self.conv(image).relu().mean((2, 3))
        for _ in range(power - 1):
            pooled = pooled * pooled
        return self.linear(torch.cat([pooled, metadata], 1))


@pytest.mark.parametrize("metadata", [METADATA, METADATA[0]])
def test_a_module_is_called_with_its_values_by_name(metadata: np.ndarray) -> None:
    module = Joined().eval()
    given = read_inputs({"metadata": metadata, "power": 2})
    arguments = arguments_of(module, None, given)
    classifier = as_classifier(module, height=8, width=8, output=None, arguments=arguments)
    assert isinstance(classifier, LogitsOf)
    batch = torch.rand(3, 3, 8, 8)
    expected = module(torch.from_numpy(METADATA).expand(3, 4), batch, 2)
    torch.testing.assert_close(classifier(batch), expected, rtol=0, atol=0)
    assert classifier.arguments.records(given)["metadata"].shape == (1, 4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"more than an image: its arguments are metadata: torch.Tensor, .*say --input image=FILE\|VALUE"),
        ({"meta": 1}, "--input meta: the model has no such argument; did you mean 'metadata'"),
        ({"metadata": [1.0, 2.0]}, r"does not take an image \[N,3,8,8\], metadata a tensor \[N\]"),
        ({"metadata": 1, "image": 1, "power": 1}, "for all of the model's arguments"),
    ],
)
def test_values_that_a_module_does_not_take_are_refused(inputs: dict[str, Any], message: str) -> None:
    module = Joined().eval()
    with pytest.raises(ExportError, match=message):
        as_classifier(module, height=8, width=8, output=None, arguments=arguments_of(module, None, read_inputs(inputs)))


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "[1, 2"])
def test_a_text_that_is_no_list_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ExportError, match=r"^--input x=.{1,80}: accepted is a number, a list of numbers"):
        read_inputs({"x": text})


def test_the_number_of_a_value_is_kept_as_it_was_typed() -> None:
    given = read_inputs({"a": "0.50", "b": 2, "c": [1, 2], "d": "[1]"})
    assert [value.text for value in given.values()] == ["0.50", "2", None, "[1]"]
    assert re.fullmatch(r"--input c=int64 \[2\]", given["c"].in_words)
