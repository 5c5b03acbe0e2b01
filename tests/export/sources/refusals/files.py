"""Files that are broken or reach outside their folder."""

from pathlib import Path
from typing import Any

import onnx
from onnx import helper
from tests.export.sources.refusals.case import Case, enter
from tests.export.zoo import ZOO
from tests.export.zoo.graphs import (
    GraphBuilder,
    classes_info,
    image_info,
)
from tests.export.zoo.plain import plain

CASES: dict[str, tuple[Case, str]] = {}
refused = enter(CASES)


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
