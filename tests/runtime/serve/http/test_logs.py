"""The log: a JSON object per line, and a place that takes no more lines harms nobody."""

import json
import logging
import os
import threading
import warnings
from pathlib import Path

import pytest

from ortcam.serve.http.logs import LogWriter, log, logged_warnings


def written(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_line_is_an_object_with_what_is_known(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log")
    writer.start()
    with writer.taking("ortcam"):
        log("request", request="a1", path="/é\n", seconds=0.5)
        log("internal error", level=logging.ERROR, error=ValueError("odd"))
        logging.getLogger("ortcam").warning("of the library")
    writer.stop()
    first, second, third = written(tmp_path / "log")
    assert (first["event"], first["level"], first["path"], first["seconds"]) == ("request", "info", "/é\n", 0.5)
    assert str(first["time"]).endswith("Z")
    assert "ValueError: odd" in str(second["traceback"])
    assert third["event"] == "of the library"
    assert writer.dropped == 0


def test_a_warning_is_a_line(tmp_path: Path) -> None:
    before = warnings.showwarning
    writer = LogWriter(tmp_path / "log")
    writer.start()
    with warnings.catch_warnings(), writer.taking("ortcam"), logged_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd\nnumbers", RuntimeWarning, stacklevel=1)
    writer.stop()
    (line,) = written(tmp_path / "log")
    assert (line["event"], line["level"], line["kind"]) == ("warning", "warning", "RuntimeWarning")
    assert line["reason"] == "odd\nnumbers"
    assert warnings.showwarning is before


def test_a_file_that_was_rotated_is_opened_anew(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log")
    writer.start()
    (tmp_path / "log").rename(tmp_path / "old")
    writer.reopen()
    with writer.taking("ortcam"):
        log("after")
    writer.stop()
    assert [line["event"] for line in written(tmp_path / "log")] == ["after"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to write to")
def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    writer = LogWriter(Path("/dev/full"))
    writer.start()
    with writer.taking("ortcam"):
        for _ in range(3):
            log("lost")
    writer.stop()
    assert writer.dropped == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_nobody_reads_holds_up_no_request(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = LogWriter(pipe)
    writer.start()
    done = threading.Event()

    def fill() -> None:
        with writer.taking("ortcam"):
            for _ in range(200):
                log("line", text="x" * 4000)  # more than a pipe holds
        done.set()

    threading.Thread(target=fill, daemon=True).start()
    assert done.wait(60)  # the lines are taken although none of them can be written
    os.close(reader)
    writer.stop()
