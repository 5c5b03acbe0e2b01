"""Graphs of which only the user can say what is missing, and did not or said wrong."""

from pathlib import Path
from typing import Any

from tests.export.sources.refusals.case import Case, enter
from tests.export.zoo import ZOO
from tests.export.zoo.plain import plain

CASES: dict[str, tuple[Case, str]] = {}
refused = enter(CASES)


@refused(r"^(?!.*--labels)(?=.*--preset NAME)(?=.*--mean)(?=.*--std)")
def nothing_said(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"mean": None, "std": None, "channel_order": None, "labels": None}


@refused(r"^(?!.*--mean).*--std R,G,B")
def std_not_said(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"std": None}


@refused(r"uint8.*--mean")
def statistics_for_an_input_of_bytes(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["uint8_of_batch_1_normalised_inside"](folder).path, {}


@refused(r"4 labels.*5 classes")
def labels_too_few(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"labels": ["a", "b", "c", "d"]}


@refused(r"'nonsense'.*maps.*embedding.*logits")
def output_that_is_not_there(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["several_outputs"](folder).path, {"output": "nonsense"}


@refused(r"--model-output.*maps.*embedding.*logits|maps.*embedding.*logits.*--model-output")
def several_outputs_and_none_named(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["several_outputs"](folder).path, {}


@refused(r"(?=.*one logit)(?=.*--activation sigmoid)")
def one_logit_with_softmax(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["ends_in_one_logit_without_an_axis"](folder).path, {"labels": ["defect"]}


@refused(r"--input-size")
def open_size_not_said(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["open_image_size"](folder).path, {}


@refused(r"--input-size.*32.*48.*64")
def size_that_contradicts_the_graph(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"input_size": (32, 32)}


@refused(r"--input-layout")
def layout_that_cannot_be_told(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["nhwc_that_its_shape_does_not_tell"](folder).path, {}


@refused(r"--input-layout nhwc")
def layout_that_contradicts_the_graph(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder), {"input_layout": "nhwc"}
