"""MODEL that is a module of PyTorch, or a callable that makes one: all that it holds decides which export is found."""

import functools
from pathlib import Path

import numpy as np
import pytest

import ortcam
import ortcam_export

torch = pytest.importorskip("torch")
TinyNet = pytest.importorskip("tests.common.tiny").TinyNet

TINY = {"preset": "imagenet", "activation": "softmax"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny_file(classifier: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(classifier)
    return path


@pytest.mark.slow
def test_python_loads_what_the_command_loads(tiny_file: Path) -> None:
    explainer = ortcam.load(tiny_file, labels=list("abcdef"), input_size=(32, 48), **TINY)
    assert explainer.labels == tuple("abcdef")
    module = ortcam.load(TinyNet().eval(), input_size=(32, 48), **TINY)
    assert module.labels[0] == "class 0"
    picture = np.zeros((32, 48, 3), np.uint8)
    np.testing.assert_allclose(module.predict(picture), explainer.predict(picture), rtol=1e-4, atol=1e-6)
    assert ortcam.load(TinyNet().eval(), input_size=(32, 48), **TINY).bundle.path == module.bundle.path


@pytest.mark.long
def test_weights_of_a_module_count(tiny_file: Path) -> None:
    module = TinyNet().eval()
    first = ortcam.load(module, input_size=(32, 48), **TINY).bundle.path
    with torch.no_grad():
        module.classifier.bias += 1
    assert ortcam.load(module, input_size=(32, 48), **TINY).bundle.path != first


@pytest.mark.slow
def test_all_that_a_module_holds_counts() -> None:
    def holding(value: object) -> str:
        torch.manual_seed(0)
        module = TinyNet()
        module.held = value
        found = ortcam_export.identity_of(module)
        assert found is not None
        return found

    class Settings:
        def __init__(self, size: int) -> None:
            self.size = size

    pairs: list[tuple[object, object]] = [
        (torch.ones(3), torch.zeros(3)),
        ([np.ones(3)], [np.zeros(3)]),
        (torch.relu, torch.sigmoid),
        (functools.partial(torch.clamp, min=0), functools.partial(torch.clamp, min=1)),
        (Settings(1), Settings(2)),
        ([torch.nn.ReLU()], [torch.nn.GELU()]),
    ]
    for first, second in pairs:
        assert holding(first) == holding(first)
        assert holding(first) != holding(second)


@pytest.mark.slow
def test_a_callable_is_called_again_and_found_as_long_as_it_returns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weight.txt").write_text("1")
    (tmp_path / "opening_models.py").write_text(
        "import torch\nfrom pathlib import Path\nfrom tests.common.tiny import TinyNet\n"
        "def make():\n    net = TinyNet()\n"
        "    with torch.no_grad():\n        net.classifier.bias += float(Path('weight.txt').read_text())\n"
        "    return net.eval()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def load() -> Path:
        return ortcam.load("opening_models:make", input_size=(32, 48), **TINY).bundle.path

    first = load()
    assert load() == first
    (tmp_path / "weight.txt").write_text("2")
    assert load() != first
