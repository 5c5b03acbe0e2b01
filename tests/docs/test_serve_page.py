"""The blocks of docs/how-to/serve.md that need its server run against one."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.runtime.serve.faults.server import PATIENCE, Server, serving

pytestmark = pytest.mark.long

PAGE = (REPOSITORY / "docs" / "how-to" / "serve.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8080"
BLOCKS = re.findall(r'skip: next "needs the server[^\n]*\n```(sh|python)\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
# A refusal is an error there.
STRICT = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The one that the page starts."""
    (command,) = re.findall(r"^ortcam serve (\w+)$", PAGE, re.MULTILINE)
    with serving(tmp_path_factory.mktemp("page"), command) as running:
        yield running


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_that_needs_the_server_runs(language: str, block: str, server: Server, tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "docs" / "images" / "coffee.jpg", tmp_path / "cat.jpg")
    block = block.replace(ADDRESS, f"http://127.0.0.1:{server.port}")
    command = (
        [sys.executable, "-c", block] if language == "python" else ["bash", "-euo", "pipefail", "-c", STRICT + block]
    )
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "overlay.png" in block:
        assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")
    if "state.json" in block:
        assert '"done"' in (tmp_path / "state.json").read_text()
        assert "event: " in done.stdout, "a stream of events"
    if language == "python":
        assert done.stdout.strip(), "a label"


def test_every_address_of_the_page_is_that_of_the_server() -> None:
    assert len(BLOCKS) == PAGE.count("tests/docs/test_serve_page.py runs it")
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}
    assert all(ADDRESS in block for _, block in BLOCKS)
