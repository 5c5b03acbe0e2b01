"""The blocks of docs/how-to/object-storage.md run against an S3 server on this machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.common.object_stores import object_store
from tests.conftest import REPOSITORY
from tests.runtime.serve.faults.server import PATIENCE

from ortcam.bundle.shipped import sample_images

pytestmark = pytest.mark.long

PAGE = (REPOSITORY / "docs" / "how-to" / "object-storage.md").read_text("utf-8")
BLOCKS = re.findall(r'skip: next "needs a store[^\n]*\n```(sh|python)\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)


def test_the_blocks_of_the_page_run_in_order(tmp_path: Path) -> None:
    assert len(BLOCKS) == PAGE.count("tests/docs/test_object_storage_page.py runs it")
    coffee = REPOSITORY / "docs" / "images" / "coffee.jpg"
    images = {"cat.jpg": coffee, "coffee.jpg": coffee} | {path.name: path for path in sample_images()}
    with object_store(images) as store:
        environment = store.environment()
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        # What the reader puts in.
        given = {
            "_ID=...": f"_ID={environment['AWS_ACCESS_KEY_ID']}",
            "SECRET_ACCESS_KEY=...": f"SECRET_ACCESS_KEY={environment['AWS_SECRET_ACCESS_KEY']}",
            "http://127.0.0.1:9000": store.url,
        }
        printed = ""
        for language, text in BLOCKS:
            block = text
            for there, here in given.items():
                block = block.replace(there, here)
            shell = ["bash", "-euo", "pipefail", "-c", block]
            done = subprocess.run(
                [sys.executable, "-c", block] if language == "python" else shell,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=5 * PATIENCE,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr, done.stderr
            printed = done.stdout
    assert "umbrella" in printed, "the table that the page reads back"
    assert "fish.png" in printed
