"""Weights beside the graph."""

from pathlib import Path

import onnx
from tests.export.zoo.graphs import (
    ZooFile,
)
from tests.export.zoo.plain import Builder, enter, plain

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


def external(folder: Path, location: str) -> ZooFile:
    path = plain(folder)
    model = onnx.load(path)
    (folder / location).parent.mkdir(exist_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return ZooFile(path)


@zoo
def external_data(folder: Path) -> ZooFile:
    return external(folder, "net.onnx.data")


@zoo
def external_data_in_a_name_with_spaces(folder: Path) -> ZooFile:
    return external(folder, "the weights/of the net, 2.bin")


@zoo
def external_data_of_one_file_a_tensor(folder: Path) -> ZooFile:
    path = plain(folder)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=64)
    return ZooFile(path)
