"""What decoders print is heard, and what others print is not swallowed."""

import ctypes
import os
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
from tests.common.images import encoded

from ortcam.images.formats.decoder_output import listening

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="C's stderr is no variable there")


def c_says(text):
    """Print as C libraries do, past Python, on the stream `stderr`."""
    ctypes.CDLL(None).perror(text.encode())


def damaged():
    data = bytearray(encoded(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8), "JPEG"))
    data[len(data) // 2 : len(data) // 2 + 99] = b"\x12" * 99
    return np.frombuffer(bytes(data), np.uint8)


def test_words_of_decoders_are_heard():
    picture, heard = listening(lambda: cv2.imdecode(damaged(), cv2.IMREAD_COLOR))
    assert picture.shape == (99, 99, 3)
    assert heard.startswith("Corrupt JPEG data")
    assert listening(lambda: "next") == ("next", "")


def test_words_of_others_reach_stderr(capfd):
    c_says("before")
    _, heard = listening(lambda: c_says("between"))
    c_says("after")
    assert heard == ""
    assert [line.split(":")[0] for line in capfd.readouterr().err.splitlines()] == ["before", "between", "after"]


def test_python_and_other_processes_write_where_they_always_do(capfd):
    def speak():
        print("python", file=sys.__stderr__, flush=True)
        os.write(2, b"descriptor\n")
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'process\\n')"], check=True)
        return capfd.readouterr().err.splitlines()  # while the decoding is under way

    said, heard = listening(speak)
    assert {"python", "descriptor", "process"} <= set(said)
    assert heard == ""


def test_an_error_in_decoding_leaves_stderr_as_it_was(capfd):
    with pytest.raises(ZeroDivisionError):
        listening(lambda: 1 / 0)
    c_says("still here")
    assert "still here" in capfd.readouterr().err


def test_opencvs_level_of_logging_comes_back():
    logging = getattr(cv2.utils, "logging", cv2)
    level = logging.setLogLevel(2)
    try:
        listening(lambda: None)
        assert logging.getLogLevel() == 2
    finally:
        logging.setLogLevel(level)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_forked_meanwhile_has_its_stderr(capfd):
    def fork():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads
            child = os.fork()
        if not child:
            c_says("child")
            _, heard = listening(lambda: cv2.imdecode(damaged(), cv2.IMREAD_COLOR))
            os._exit(0 if heard.startswith("Corrupt JPEG data") else 1)
        return os.waitpid(child, 0)[1]

    assert listening(fork) == (0, "")
    assert capfd.readouterr().err.startswith("child")
