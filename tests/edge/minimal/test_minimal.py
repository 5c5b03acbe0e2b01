"""A build with the operators of two fused files runs these, gives Python's maps, and refuses other files by name."""

import re
from pathlib import Path

import onnx
import pytest

import ortcam
from tests.edge.cpp import CLOSE, IMAGE, SHAPES, map_difference
from tests.edge.minimal import building
from tests.edge.minimal.building import build, built, missing, unneeded
from tests.edge.minimal.comparing import METHODS, REFUSED, Program, fused, operators, programs, refusal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for fused files and programs."""
    return tmp_path_factory.mktemp("minimal")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Program]:
    """The example in C++ with the small build, which `make edge-minimal` has made."""
    if reason := missing():
        pytest.skip(reason)
    if (root := built(operators(folder))) is None:
        pytest.skip("no small build for these operators: make edge-minimal, which takes an hour")
    return programs(root, folder)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_pythons(made: dict[str, Program], folder: Path, method: str) -> None:
    maps = folder / "maps.f32"
    done = made["small"].run(fused(folder, method, ".ort"), IMAGE, folder / "map.png", maps)
    assert done.returncode == 0, done.stderr
    limits = {"completion": "none", **METHODS[method]} if METHODS[method] else {}
    expected = ortcam.load(SHAPES).explain(IMAGE, method=method, **limits).maps
    assert map_difference(maps, expected) <= CLOSE
    assert expected.max() == 1


@pytest.mark.slow
def test_an_operator_that_it_lacks_is_named(made: dict[str, Program], folder: Path) -> None:
    found = re.search(r"implementation for (\w+)\(\d+\)", refusal(made, folder, REFUSED, ".ort"))
    assert found is not None
    graph = onnx.load(fused(folder, REFUSED, ".onnx")).graph
    assert found[1] in {node.op_type for node in graph.node}
    assert "not supported in this build" in refusal(made, folder, "grad-cam", ".onnx")


@pytest.mark.slow
def test_it_is_small_and_needs_no_other_library(made: dict[str, Program]) -> None:
    whole, small = made["Debian's, whole"], made["small"]
    assert small.library.stat().st_size < whole.library.stat().st_size / 4
    assert small.needs == []


def test_a_list_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "FOLDER", tmp_path)
    (tmp_path / "built.config").write_text("# written today\nai.onnx;13;Add\n")
    assert built("ai.onnx;13;Add\n") is None  # the library is not there
    library = tmp_path / "debian/root" / building.PREFIX / "lib/libonnxruntime.so"
    library.parent.mkdir(parents=True)
    library.touch()
    assert built("# written before\nai.onnx;13;Add\n") == build("ai.onnx;13;Add\n") == tmp_path / "debian/root"
    assert built("ai.onnx;13;Add,Mul\n") is None


def test_only_what_a_list_needs_is_compiled(tmp_path: Path) -> None:
    """Files that say of no operator, as helpers, stay where one of the folder is needed."""
    for place, text in {
        "core/providers/cpu/math/gemm.cc": "ONNX_CPU_OPERATOR_KERNEL(\n    Gemm, 13, x)",
        "core/providers/cpu/math/det.cc": "ONNX_CPU_OPERATOR_KERNEL(\n    Det, 11, x)",
        "core/providers/cpu/math/shared.cc": "void f() {}",
        "core/providers/cpu/cpu_provider_factory.cc": "void h() {}",
        "core/providers/cpu/tensor/where_op.cc": "WHERE_TYPED_KERNEL(float)",
        "contrib_ops/cpu/bert/attention.cc": "ONNX_OPERATOR_TYPED_KERNEL_EX(\n    Attention, x)",
        "contrib_ops/cpu/bert/helper.cc": "void g() {}",
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    text = '# of a file\nai.onnx;13;Gemm{"inputs": {"0": ["float"]}},Where\n'
    assert [path.name for path in unneeded(tmp_path, text)] == ["attention.cc", "helper.cc", "det.cc"]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building.platform, "machine", lambda: "riscv64")
    assert "only x86_64" in str(missing())
    monkeypatch.setattr(building.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(building.shutil, "which", lambda _: None)
    assert "apt-get install clang lld" in str(missing())
