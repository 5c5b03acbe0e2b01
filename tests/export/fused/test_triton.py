"""The repository of Triton's server beside a fused file."""

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from google.protobuf import text_format

from ortcam.errors import OrtcamError
from ortcam_export import Fused, fuse


def model_config() -> Any:
    """Triton's own schema, of its client's package; that package as a whole needs gRPC."""
    path = importlib.metadata.distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scorecam++", "grad-cam"])
@pytest.mark.parametrize("external", [False, True])
def test_triton_gets_a_repository_with_a_configuration_of_its_schema(
    tiny_bundle: Path, tmp_path: Path, external: bool, method: str
) -> None:
    schema = model_config()
    settings = {"method": method, "runtime_targets": True, "uint8_input": True, "external": external}
    fused: Fused = fuse(tiny_bundle, triton=tmp_path, name="Katze_1.2", **settings)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    weights = {"Katze_1.2/1/model.onnx.data"} if external else set()
    assert files == {"Katze_1.2/config.pbtxt", "Katze_1.2/1/model.onnx"} | weights
    text = (tmp_path / "Katze_1.2" / "config.pbtxt").read_text("ascii")
    config = text_format.Parse(text, schema.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("Katze_1.2", "onnxruntime", 0)
    assert json.loads(config.parameters["labels"].string_value)[2] == "sea snake"
    kinds = {"tensor(float)": "FP32", "tensor(int64)": "INT64", "tensor(uint8)": "UINT8", "tensor(bool)": "BOOL"}
    session = ort.InferenceSession(fused.path, providers=["CPUExecutionProvider"])
    for told, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        said = [(io.name, schema.DataType.Name(io.data_type), list(io.dims)) for io in told]
        assert said == [
            (io.name, f"TYPE_{kinds[io.type]}", [size if isinstance(size, int) else -1 for size in io.shape])
            for io in real
        ]


def test_a_model_of_a_repository_is_replaced_whole_and_other_folders_are_left_alone(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    first = fuse(tiny_bundle, triton=tmp_path, method="scorecam++", external=True)
    assert first.path == tmp_path / "tiny-scorecampp" / "1" / "model.onnx"
    with pytest.raises(OrtcamError, match="--force replaces it"):
        fuse(tiny_bundle, triton=tmp_path, method="scorecam++")
    fuse(tiny_bundle, triton=tmp_path, method="scorecam++", force=True)
    assert [path.name for path in first.path.parent.iterdir()] == ["model.onnx"]
    (tmp_path / "mine" / "2").mkdir(parents=True)
    (tmp_path / "mine" / "config.pbtxt").write_text("of somebody else")
    with pytest.raises(OrtcamError, match=r"not a model with version 1 and config\.pbtxt alone"):
        fuse(tiny_bundle, triton=tmp_path, name="mine", force=True)
    with pytest.raises(OrtcamError, match="accepted are letters"):
        fuse(tiny_bundle, triton=tmp_path, name="../mine")
