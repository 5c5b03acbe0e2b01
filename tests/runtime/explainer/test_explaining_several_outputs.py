"""A bundle with several outputs: Python, commands and the server name them, and so do scores."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from tests.conftest import TENSOR_BUNDLE

import ortcam
from ortcam.benchmarking import benchmark
from ortcam.bundle import MANIFEST_NAME
from ortcam.cli import main
from ortcam.serve import Settings, create_app

PHOTOGRAPH = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """The graphs of a tensor [2,4,6], of which the manifest says that it is two outputs."""
    folder = tmp_path / "several.ortcam"
    folder.mkdir()
    for file in TENSOR_BUNDLE.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((folder / MANIFEST_NAME).read_text("utf-8"))
    parts = [{"name": "scores", "shape": [4, 6]}, {"name": "a - b", "shape": [24]}]
    manifest |= {"output_shape": [48], "output_parts": parts}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("method", ["scorecam", "grad-cam"])
def test_a_score_by_names_is_the_score_of_the_same_numbers(method: str, several: Path) -> None:
    with ortcam.load(several, threads=1) as named, ortcam.load(TENSOR_BUNDLE, threads=1) as tensor:
        np.testing.assert_array_equal(named.predict(PHOTOGRAPH), tensor.predict(PHOTOGRAPH).reshape(-1))
        for by_name, by_place in (
            ("scores[:, :]", "output[0, :, :]"),
            ("2*scores[1, 2] - 'a - b'[7]", "2*output[0, 1, 2] - output[1, 1, 1]"),
        ):
            found = named.explain(PHOTOGRAPH, method=method, score=by_name)
            expected = tensor.explain(PHOTOGRAPH, method=method, score=by_place)
            np.testing.assert_array_equal(found.maps, expected.maps)
            assert found.labels == (by_name,)


@pytest.mark.slow
def test_commands_name_each_output(several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(PHOTOGRAPH).save(picture)
    with ortcam.load(several, threads=1) as explainer:
        values = explainer.bundle.manifest.outputs_by_name(explainer.predict(picture))
    assert main(["inspect", str(several)]) == 0
    printed = capsys.readouterr().out
    assert "output         scores [4, 6]" in printed
    assert "output         a - b [24]" in printed
    assert "ortcam explain --score 'scores[0, :]'" in printed
    command = ["predict", str(several), str(picture)]
    assert main(command) == 0
    _, _, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["scores", "[4,", "6]"]
    assert second.endswith(f"largest {values['a - b'].max():.4g}")
    assert main([*command, "--csv"]) == 0
    head, first, _ = capsys.readouterr().out.splitlines()
    assert head == "image,output,least,mean,largest"
    assert float(first.split(",")[2]) == pytest.approx(float(values["scores"].min()))
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["outputs"] == {"scores": [4, 6], "a - b": [24]}
    assert found["predictions"][0]["outputs"]["scores"]["largest"] == pytest.approx(float(values["scores"].max()))
    explain = ["explain", str(several), str(picture), "-m", "grad-cam,layer-cam", "-o", str(tmp_path / "out")]
    for score, said in (([], "--score 'scores[0, :]'"), (["--score", "score[0, :]"], "did you mean 'scores'")):
        assert main([*explain, *score]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert not (tmp_path / "out").exists()
    assert main([*explain, "--score", "'a - b'[:] - scores[0, 0]"]) == 0


def test_a_benchmark_explains_the_first_number(several: Path) -> None:
    timings = benchmark(several, methods=["grad-cam"], runs=1, seconds=1)
    assert "outputs are scores [4, 6], a - b [24] without classes: scores[0, 0] is explained" in timings.notes[0]


@pytest.mark.slow
def test_a_server_names_each_output(several: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).save(content, "PNG")
    with TestClient(create_app(Settings.of([str(several)]))) as client:
        for _ in range(3000):
            if client.get("/v2/health/ready").status_code == 200:
                break
            time.sleep(0.02)
        parameters = client.get("/v2/models/several").json()["parameters"]
        assert (parameters["output_shape"], parameters["output_parts"]) == ([48], {"scores": [4, 6], "a - b": [24]})
        (record,) = client.post("/v1/models/several:predict", content=content.getvalue()).json()["predictions"]
        assert {name: entry["shape"] for name, entry in record["outputs"].items()} == {"scores": [4, 6], "a - b": [24]}
        assert record["outputs"]["scores"]["lowest"] < record["outputs"]["scores"]["highest"]
        answer = client.post(
            "/v1/models/several:explain",
            content=content.getvalue(),
            params={"score": "scores[1, :]", "method": "grad-cam"},
        )
        assert answer.status_code == 200, answer.text
