"""Classes by embeddings: logits are the cosines of an image's embedding with them, as float64 has them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.zoo.graphs import HEIGHT, WIDTH, GraphBuilder, image_info, tensor_info

import ortcam
from ortcam.errors import OptionError
from ortcam_export import export
from ortcam_export.errors import ExportError
from ortcam_export.sources.conversion import convert
from ortcam_export.sources.converted import run_whole
from ortcam_export.sources.given.class_embeddings import embeddings_of
from ortcam_export.sources.opening import open_source
from ortcam_export.sources.pytorch.outputs import as_classifier
from ortcam_export.sources.types import InputSpec

DIMENSION, CLASSES = 7, 4
ROWS = np.random.default_rng(0).normal(size=(CLASSES, DIMENSION)).astype(np.float32)
SAID: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def exact_logits(embeddings: np.ndarray, scale: float, bias: float) -> np.ndarray:
    z, rows = (
        array.astype(np.float64) / np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
        for array in (embeddings, ROWS)
    )
    return np.asarray(scale * z @ rows.T + bias)


def encoder(folder: Path, *, batch: int | str = "N") -> Path:
    g = GraphBuilder()
    g.head(g.features("image"), DIMENSION, out="embedding")
    return g.save(folder / "net.onnx", [image_info(batch=batch)], [tensor_info("embedding", (batch, DIMENSION))])


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(("scale", "bias", "activation"), [(None, None, None), (10.0, -3.0, "sigmoid")])
@pytest.mark.parametrize("batch", ["N", 1])
def test_an_encoder_and_embeddings_make_a_classifier(
    batch: int | str, scale: float | None, bias: float | None, activation: Any, tmp_path: Path
) -> None:
    path = encoder(tmp_path, batch=batch)
    np.save(tmp_path / "text.npy", ROWS)
    spec = InputSpec(
        classes=str(tmp_path / "text.npy"), logit_scale=scale, logit_bias=bias, activation=activation, **SAID
    )
    source = open_source(path, spec=spec)
    values = convert(open_source(path, spec=InputSpec(activation="identity", **SAID)), opset=20, activation="identity")
    converted = convert(source, opset=20, activation=activation)

    expected = exact_logits(values.logits, scale or 100.0, bias or 0.0)
    # The graph divides two sums of 7 squares and products, all of them within 1, in float32.
    bound = 40 * np.finfo(np.float32).eps * (scale or 100.0)
    images = converted.images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    assert np.abs(converted.logits - expected).max() <= bound
    assert np.abs(run_whole(converted.model, images) - expected).max() <= bound
    assert converted.activation == (activation or "softmax")
    assert source.embeddings is not None
    assert (source.embeddings.scale, source.embeddings.bias) == (scale or 100.0, bias or 0.0)
    assert source.embeddings.sha256 == hashlib.sha256((tmp_path / "text.npy").read_bytes()).hexdigest()
    black = run_whole(converted.model, np.zeros((1, 3, HEIGHT, WIDTH), np.float32))
    assert np.isfinite(black).all()


def test_an_encoder_of_pytorch_gives_the_same_logits() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, DIMENSION, 8), torch.nn.Flatten()).eval()
    classes = embeddings_of(InputSpec(classes=ROWS, logit_scale=10, logit_bias=-3))
    classifier = as_classifier(module, height=8, width=8, output=None, classes=classes)
    batch = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = exact_logits(module(batch).detach().numpy(), 10, -3)
    assert np.abs(classifier(batch).detach().numpy() - expected).max() <= 40 * np.finfo(np.float32).eps * 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ROWS[0]}, r"float32 \[7\]; accepted is floating \[K,D\]"),
        ({"classes": np.ones((4, 7), np.int64)}, r"int64 \[4, 7\]; accepted is floating"),
        ({"classes": ROWS * np.array([[1], [1], [0], [1]], np.float32)}, "row 2 is zero, which has no direction"),
        ({"classes": ROWS * np.float32(np.nan)}, "infinite or not a number"),
        ({"classes": "nothing.npy"}, r"--classes nothing\.npy: no such file"),
        ({"classes": ROWS, "logit_scale": 0.0}, "--logit-scale 0 .*: accepted are numbers above 0"),
        ({"classes": ROWS, "logit_bias": float("inf")}, "--logit-bias inf"),
        ({"classes": ROWS, "activation": "identity"}, "--activation identity: does not go with --classes"),
        ({"logit_bias": 1.0}, "--logit-bias goes with --classes"),
    ],
)
def test_embeddings_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        embeddings_of(InputSpec(**changes))


def test_embeddings_of_another_dimension_are_refused(tmp_path: Path) -> None:
    for rows, message in ((ROWS[:, :5], r"\[4,5\], and .* gives embeddings of 7"), (ROWS.T, "may be transposed")):
        source = open_source(encoder(tmp_path), spec=InputSpec(classes=rows, **SAID))
        with pytest.raises(ExportError, match=message):
            convert(source, opset=20, activation=None)


@pytest.mark.long
def test_scores_of_classes_by_embeddings_are_those_of_their_logits(tmp_path: Path) -> None:
    """A difference of two of them, an entropy; and an embedding is no cosine of an output of theirs."""
    np.save(tmp_path / "text.npy", ROWS)
    (tmp_path / "labels.txt").write_text("a cat\na dog\na mug\na key\n")
    given: dict[str, Any] = {"classes": str(tmp_path / "text.npy"), "labels": str(tmp_path / "labels.txt"), **SAID}
    bundle = export(encoder(tmp_path), tmp_path / "net.ortcam", **given)
    photograph = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    with ortcam.load(bundle, threads=1) as explainer:
        options: dict[str, Any] = {"method": "scorecam", "batch_size": 4}
        logits, _ = explainer.classify(photograph)
        minus = explainer.explain(photograph, score="'a cat' - 'a dog'", **options)
        assert minus.probabilities[0] == pytest.approx(logits[0] - logits[1], rel=1e-5)
        reverse = explainer.explain(photograph, score="'a dog' - 'a cat'", **options)
        np.testing.assert_allclose(reverse.weights, -minus.weights, rtol=0, atol=1e-4 * np.abs(minus.weights).max())
        for method in ("scorecam", "grad-cam", "recipro-cam"):
            assert np.isfinite(explainer.explain(photograph, method=method, score="entropy").maps).all()
        with pytest.raises(OptionError, match=r"has shape \[7\]; accepted is \[4\], .* one more row of their file"):
            explainer.explain(photograph, score=ortcam.Score("cosine:query", arrays={"query": ROWS[0]}))
