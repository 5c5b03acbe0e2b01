"""Files that no bundle can be made of: refused in one line, and nothing is written."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.export.sources.refusals import ARGUMENTS, CASES
from tests.export.zoo.bundles import flags
from tests.export.zoo.plain import plain

from ortcam.cli import main
from ortcam_export import ExportError, export


@pytest.mark.slow
def test_a_file_with_any_bytes_changed_is_exported_or_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, destination = plain(tmp_path), tmp_path / "b.ortcam"
    content = path.read_bytes()
    weights = [tensor.raw_data for tensor in onnx.load(path).graph.initializer if len(tensor.raw_data) > 64]
    inside = {place + index for data in weights for place in [content.find(data)] for index in range(len(data))}
    structure = [index for index in range(len(content)) if index not in inside]
    generator = np.random.default_rng(0)
    messages = []
    for number in range(60):
        changed = bytearray(content)
        for index in generator.choice(structure, 1 + number % 3):
            changed[index] = generator.integers(256)
        path.write_bytes(changed[: generator.integers(len(changed))] if number % 10 == 0 else changed)
        try:
            export(path, destination, force=True, **ARGUMENTS)
        except ExportError as error:
            messages.append(str(error))
        assert [item for item in tmp_path.iterdir() if item not in (path, destination)] == []
    assert 0 < len(messages) < 60, "some are refused, some are not"
    assert [message for message in messages if len(message.splitlines()) != 1 or len(message) > 1000] == []
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


@pytest.mark.sample(every=20)
@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_line_and_nothing_is_written(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case, message = CASES[name]
    (tmp_path / "model").mkdir()
    path, changes = case(tmp_path / "model")
    arguments = {key: value for key, value in (ARGUMENTS | changes).items() if value is not None}
    (tmp_path / "out").mkdir()
    said = flags(arguments, tmp_path)
    before = sorted(item for item in tmp_path.rglob("*"))

    with pytest.raises(ExportError) as error:
        export(path, tmp_path / "out" / "b.ortcam", **arguments)
    assert re.search(message, str(error.value)), error.value
    assert len(str(error.value).splitlines()) == 1

    capfd.readouterr()
    assert main(["export", str(path), "-o", str(tmp_path / "out" / "b.ortcam"), *said]) == 2
    printed = capfd.readouterr()
    complaints = [line for line in printed.err.splitlines() if line.startswith("ortcam: ")]
    assert len(complaints) == 1
    assert re.search(message, complaints[0].removeprefix("ortcam: ")), complaints
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert sorted(item for item in tmp_path.rglob("*")) == before
