"""The command that installs what is missing fits the way that ortcam itself was installed."""

import importlib.metadata
import json
from pathlib import Path

import pytest

from ortcam.support import extras


class Installed:
    def __init__(self, origin: object) -> None:
        self.origin = origin

    def read_text(self, _: str) -> str | None:
        return None if self.origin is None else json.dumps(self.origin)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, 'pip install "ortcam[onnx]"'),
        ({"url": "file:///a%20b/ortcam", "dir_info": {"editable": True}}, 'pip install -e "/a b/ortcam[onnx]"'),
        ({"url": "file:///src/ortcam", "dir_info": {}}, 'pip install "/src/ortcam[onnx]"'),
        ({"url": "file:///w/ortcam-1-py3.whl", "archive_info": {}}, 'pip install "/w/ortcam-1-py3.whl[onnx]"'),
        (
            {"url": "https://example.org/ortcam.git", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            'pip install "ortcam[onnx] @ git+https://example.org/ortcam.git"',
        ),
        (
            {"url": "https://example.org/o.whl", "archive_info": {}},
            'pip install "ortcam[onnx] @ https://example.org/o.whl"',
        ),
        (["nonsense"], 'pip install "ortcam[onnx]"'),
    ],
)
def test_the_command_repeats_where_ortcam_came_from(
    origin: object, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed(origin))
    extras.install.cache_clear()
    try:
        assert extras.install("onnx") == command
    finally:
        extras.install.cache_clear()


def test_in_the_checkout_itself_a_dot_stands_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    origin = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed(origin))
    extras.install.cache_clear()
    try:
        assert extras.install("export") == 'pip install -e ".[export]"'
    finally:
        extras.install.cache_clear()
