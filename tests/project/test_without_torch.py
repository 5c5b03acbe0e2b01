"""The serve path needs numpy, ONNX Runtime and OpenCV: it runs where importing anything else of ours raises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ortcam.support.extras import TORCH, install

FORBIDDEN = ("torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "ortcam_export", "PIL", "scipy", "matplotlib")

REFUSE = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN!r} + EXTRA:
            raise ImportError(f"refused: {{name}}")

sys.meta_path.insert(0, Refuse())
"""


def run(script: str, *arguments: object, extra: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    code = f"EXTRA = {extra!r}\n{REFUSE}\n{script}"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_refusal_refuses() -> None:
    for name in FORBIDDEN:
        assert f"refused: {name}" in run(f"import {name}").stderr


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("extra", [(), ("tqdm",)], ids=["", "without-tqdm"])
def test_explaining_and_saving_need_none_of_it(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    script = """
import ortcam
explainer = ortcam.load(sys.argv[1])
explainer.predict(sys.argv[2])
for method in ("scorecam", "scorecam++", "sscam", "iscam"):
    explainer.explain(sys.argv[2], method=method, top_k=2).save(f"{sys.argv[3]}/{method}")
assert not [name for name in sys.modules if name.partition(".")[0] in ("torch", "onnx", "ortcam_export")]
"""
    result = run(script, tiny_bundle, photograph, tmp_path, extra=extra)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "sscam" / "manifest.json").is_file()


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("extra", [(), ("tqdm",)], ids=["", "without-tqdm"])
def test_the_command_line_needs_none_of_it(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    script = "from ortcam.cli import main\nsys.exit(main(sys.argv[1:]))"
    result = run(script, "explain", tiny_bundle, photograph, "-o", tmp_path, extra=extra)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_verifying_a_bundle_needs_none_of_it(tiny_bundle: Path, branch_bundle: Path) -> None:
    script = "from ortcam.cli import main\nsys.exit(main(sys.argv[1:]))"
    for bundle in (tiny_bundle, branch_bundle):
        result = run(script, "inspect", bundle, "--verify", extra=("tqdm", "jsonschema"))
        assert result.returncode == 0, result.stderr
        assert "measured" in result.stdout


@pytest.mark.slow
def test_export_without_its_extra_says_which_to_install(tmp_path: Path) -> None:
    script = "from ortcam.cli import main\nsys.exit(main(sys.argv[1:]))"
    result = run(script, "export", "resnet18", "-o", tmp_path / "x.ortcam")
    assert result.returncode == 2
    assert result.stderr.strip().endswith(install("export"))
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_without_a_runtime_the_import_says_which_extra_to_install() -> None:
    result = run("import ortcam", extra=("onnxruntime",))
    assert f"{install('cpu')} (any machine), {install('gpu')} (NVIDIA CUDA)" in result.stderr


def without(package: str, folder: Path) -> dict[str, str]:
    """An environment in which a package is not installed."""
    (folder / "sitecustomize.py").write_text(f"""
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_others(name, path=None, target=None):
    return None if name.partition(".")[0] == {package!r} else find(name, path, target)

PathFinder.find_spec = find_others
""")
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("onnxruntime", ["--version"], "cpu"),
        ("onnxruntime", ["explain", "b.ortcam", "x.jpg"], "cpu"),
        ("onnx_ir", ["inspect", "net.onnx"], "onnx"),
        ("onnx_ir", ["export", "net.onnx", "-o", "FOLDER/net.ortcam"], "onnx"),
        ("onnx_ir", ["export", "resnet18", "-o", "FOLDER/net.ortcam"], "export"),
        ("onnx_ir", ["fuse", "BUNDLE", "-o", "FOLDER/e.onnx"], "onnx"),
        ("torch", ["export", "resnet18", "-o", "FOLDER/net.ortcam"], "export"),
        ("torchvision", ["inspect", "resnet18"], "export"),
        ("scipy", ["evaluate", "BUNDLE", "FOLDER", "-o", "FOLDER/evaluation"], "evaluate"),
        ("matplotlib", ["benchmark", "BUNDLE", "--plot", "FOLDER/plot.png"], "plot"),
    ],
)
def test_the_command_says_in_one_line_what_is_missing_and_how_to_install_it(
    tiny_bundle: Path, tmp_path: Path, package: str, arguments: list[str], extra: str
) -> None:
    words = [word.replace("BUNDLE", str(tiny_bundle)).replace("FOLDER", str(tmp_path)) for word in arguments]
    result = subprocess.run(
        [sys.executable, "-m", "ortcam", *words],
        capture_output=True,
        text=True,
        check=False,
        env=without(package, tmp_path),
    )
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert " needs " in line
    assert (TORCH if package.startswith("torch") else install(extra)) in line


BATCH_EXTRAS = ("pyarrow", "fsspec", "ray")


@pytest.mark.slow
def test_import_and_help_need_none_of_the_extras_of_batch() -> None:
    script = "import ortcam, ortcam.batch\nfrom ortcam.cli import main\nsys.exit(main(['batch', '--help']))"
    result = run(script, extra=BATCH_EXTRAS)
    assert result.returncode == 0, result.stderr
    assert "--retry-failed" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pyarrow", "fsspec"])
def test_batch_without_its_extra_says_which_to_install(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    script = """
import ortcam
from ortcam.cli import main
try:
    ortcam.batch.run
except ortcam.OrtcamError as error:
    print(error)
sys.exit(main(sys.argv[1:]))
"""
    result = run(script, "batch", tiny_bundle, tmp_path, "-o", tmp_path / "out", extra=(name,))
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("ortcam: `ortcam batch` needs ")
    assert line.endswith(install("batch"))
    assert f"ortcam: {result.stdout.strip()}" == line
    assert not (tmp_path / "out").exists()
