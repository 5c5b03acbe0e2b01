"""An input in which black and white are the same is a mistake in scale, mean or std, and is refused."""

from pathlib import Path

import pytest
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT

from ortcam_export import ExportError, export


@pytest.mark.slow
def test_statistics_of_bytes_without_their_scale_are_refused(tmp_path: Path) -> None:
    bytes_of = TINY_INPUT | {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
    with pytest.raises(ExportError, match=r"black and white would be 0\.0078 apart.*say --scale 255"):
        export(TinyNet().eval(), tmp_path / "a.ortcam", **bytes_of)
    assert list(tmp_path.iterdir()) == []
    assert export(TinyNet().eval(), tmp_path / "a.ortcam", scale=255.0, **bytes_of).manifest.preprocessing.scale == 255


def test_a_wrong_number_of_labels_is_found_before_the_work(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(ExportError, match="2 labels for a model of 6 classes"):
        export(TinyNet().eval(), tmp_path / "a.ortcam", report=said.append, **TINY_INPUT | {"labels": ["a", "b"]})
    assert "choosing the layer" not in said
