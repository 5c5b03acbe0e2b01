"""`--model-output A,B`: each output keeps its name and shape, and the graph gives them one behind the other, flat."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tests.export.sources.outputs.test_raw_outputs import HEIGHT, MAPS, ONE, TOLERANCE, WIDTH, Several, images
from tests.export.zoo.graphs import GraphBuilder, image_info, tensor_info

import ortcam
from ortcam.cli import main
from ortcam.images.encoding import write_png
from ortcam_export import export
from ortcam_export.errors import ExportError
from ortcam_export.sources.converted import run_whole
from ortcam_export.sources.given.output_names import several_names
from ortcam_export.sources.onnx_files.adapting import adapt
from ortcam_export.sources.onnx_files.reading import read_onnx
from ortcam_export.sources.pytorch.outputs import LogitsOf, as_classifier

SHAPES = {"maps": (3, *MAPS), "embedding": (7,), "mean": (1,), "un,flat": (16,)}


def made(folder: Path, batch: int | str = "N") -> Path:
    """Maps, an embedding, a number per image as [N], and [N,16,1,1], all of one graph."""
    g = GraphBuilder()
    maps = g.features("image")
    g.head(maps, 7, out="embedding")
    g.op("Identity", g.conv(maps, 16, 3, kernel=1), out="maps")
    g.op("ReduceMean", maps, axes=[1, 2, 3], keepdims=0, out="mean")
    g.op("GlobalAveragePool", maps, out="un,flat")
    listed = {"embedding": (batch, 7), "maps": (batch, 3, *MAPS), "mean": (batch,), "un,flat": (batch, 16, 1, 1)}
    outputs = [tensor_info(name, shape) for name, shape in listed.items()]
    return g.save(folder / "net.onnx", [image_info(batch=batch)], outputs)


@pytest.mark.parametrize("batch", ["N", 1])
def test_outputs_are_one_row_in_the_order_of_their_names(batch: int | str, tmp_path: Path) -> None:
    path = made(tmp_path, batch)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = ["maps", "mean", "un,flat", "embedding"]
    adapted = adapt(read_onnx(path, activation="identity", output="maps, mean, 'un,flat', embedding"), ONE)
    assert [(part.name, part.shape) for part in adapted.parts] == [(name, SHAPES[name]) for name in names]
    each = [session.run(names, {"image": image[None]}) for image in images()]
    expected = np.stack([np.concatenate([value.reshape(-1) for value in values]) for values in each])
    np.testing.assert_allclose(run_whole(adapted.model, images()), expected, rtol=0, atol=TOLERANCE)


def test_one_name_with_a_comma_is_one_output(tmp_path: Path) -> None:
    adapted = adapt(read_onnx(made(tmp_path), activation="identity", output="un,flat"), ONE)
    assert (adapted.output_shape, adapted.parts) == ((16,), ())


@pytest.mark.parametrize(
    ("output", "activation", "message"),
    [
        ("maps,embeding", "identity", "no output 'embeding'; did you mean 'embedding'"),
        ("maps,maps", "identity", "--model-output maps,maps: accepted are names with commas between, each once"),
        ("maps,", "identity", "accepted are names with commas between"),
        ("maps,embedding", None, "several outputs go with --activation identity, .* accepted otherwise is one"),
        ("maps,embedding", "sigmoid", "several outputs go with --activation identity"),
        (None, "identity", "--model-output; its outputs are .*; several: --model-output embedding,maps,mean"),
    ],
)
def test_what_is_no_list_of_outputs_is_refused(output: str, activation: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        read_onnx(made(tmp_path), activation=activation, output=output)


def test_names_with_commas_stand_in_quotes() -> None:
    assert several_names("a, 'b,c' ,\"d\"", raw=True) == ("a", "b,c", "d")
    assert several_names("it's,b", raw=True) == ("it's", "b")
    assert several_names("a", raw=False) == several_names(None, raw=True) == ()


def test_outputs_of_a_module_are_named_as_one_is() -> None:
    module, batch = Several().eval(), torch.rand(3, 3, 8, 8)
    values = as_classifier(module, height=8, width=8, output="mean,rest.0,maps,rest.1.0", raw=True)
    assert isinstance(values, LogitsOf)
    assert [(part.name, part.shape) for part in values.parts] == [
        ("mean", (1,)),
        ("rest.0", (4, 36)),
        ("maps", (4, 6, 6)),
        ("rest.1.0", (4,)),
    ]
    given: Any = module(batch)
    each = [given["mean"], given["rest"][0], given["maps"], given["rest"][1][0]]
    expected = torch.cat([value.reshape(3, -1) for value in each], 1)
    torch.testing.assert_close(values(batch), expected, rtol=0, atol=0)
    with pytest.raises(ExportError, match=r"--model-output maps,rest.2: no 'rest.2' among .* maps: \[N,4,6,6\]"):
        as_classifier(module, height=8, width=8, output="maps,rest.2", raw=True)
    with pytest.raises(ExportError, match="several outputs go with --activation identity"):
        as_classifier(module, height=8, width=8, output="maps,mean", raw=False)
    with pytest.raises(ExportError, match="the model returns one tensor; leave the flag out"):
        as_classifier(torch.nn.Flatten().eval(), height=8, width=8, output="a,b", raw=True)


@pytest.mark.long
def test_a_score_of_several_outputs_explains_what_the_same_score_of_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, noise = made(tmp_path), np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    write_png(tmp_path / "noise.png", noise)
    said = {"activation": "identity", "mean": (0.5,) * 3, "std": (0.5,) * 3, "layer": None}
    several = export(path, tmp_path / "several.ortcam", output="mean,maps,embedding", **said)
    one = export(path, tmp_path / "one.ortcam", output="maps", **said)
    other = export(path, tmp_path / "other.ortcam", output="embedding", **said)
    assert several.manifest.outputs == 1 + 3 * MAPS[0] * MAPS[1] + 7
    with ortcam.load(several) as both, ortcam.load(one) as alone, ortcam.load(other) as beside:
        values = both.bundle.manifest.outputs_by_name(both.predict(noise))
        np.testing.assert_allclose(values["maps"], alone.predict(noise), rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(values["embedding"], beside.predict(noise), rtol=0, atol=TOLERANCE)
        for method in ("scorecam", "grad-cam"):
            for explainer, score in ((alone, "{}[1, :, :]"), (beside, "{}[3] - 2*{}[0]")):
                name = "maps" if explainer is alone else "embedding"
                found = both.explain(noise, method=method, score=score.replace("{}", name))
                expected = explainer.explain(noise, method=method, score=score.replace("{}", "output"))
                np.testing.assert_allclose(found.maps, expected.maps, rtol=0, atol=1e-3)
    assert main(["inspect", str(several.path)]) == 0
    told = capsys.readouterr().out
    assert "output         mean [1]" in told
    assert "ortcam explain --score 'mean[0]'" in told
    assert main(["predict", str(several.path), str(tmp_path / "noise.png"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["outputs"] == {"mean": [1], "maps": [3, *MAPS], "embedding": [7]}
    spans = record["predictions"][0]["outputs"]
    assert spans["embedding"]["largest"] == pytest.approx(float(values["embedding"].max()), rel=1e-4)
    assert main(["predict", str(several.path), str(tmp_path / "noise.png")]) == 0
    assert "  embedding [7]  least " in capsys.readouterr().out
