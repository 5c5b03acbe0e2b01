"""A process that a hostile image has taken over cannot take over the server: what it says is not trusted."""

import io
import json
import os
import pickle
import stat
import sys

import pytest

from ortcam.images.preprocessing import Preprocessing
from ortcam.serve.decoding.frames import BrokenFrameError, read_head, write_frame
from ortcam.serve.decoding.process import DecodingProcess
from ortcam.serve.decoding.sources import Encoded
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.settings import RequestLimits

PREPROCESSING = Preprocessing(height=4, width=4, resize=None, mean=(0, 0, 0), std=(1, 1, 1))
# Says that it is ready, reads its question, and gives the answer that its copy of this text has.
RAVING = """#!{python}
import os, sys
def frame(head):
    os.write(1, len(head).to_bytes(4, "little") + head)
frame(b'{{"ready": true, "sizes": []}}')
os.read(0, 1 << 16)
{answer}
os.read(0, 1 << 16)
os.read(0, 1 << 16)
"""
ANSWERS = {
    "pixels beyond the limit": 'frame(b\'{"pixels": [100000, 100000, 3], "input": [1, 3, 4, 4], "warnings": []}\')',
    "a negative height": 'frame(b\'{"pixels": [-3, -3, 3], "input": [1, 3, 4, 4], "warnings": []}\')',
    "an infinite height": 'frame(b\'{"pixels": [Infinity, 3, 3], "input": [1, 3, 4, 4], "warnings": []}\')',
    "pixels of no shape": 'frame(b\'{"pixels": "large"}\')',
    "a list": "frame(b'[]')",
    "no answer that anybody knows": "frame(b'{}')",
    "a refusal of no form": "frame(b'{\"refused\": 3}')",
    "deep JSON": "frame(b'[' * 100000)",
    "an endless head": "os.write(1, b'\\xff' * 4)",
    "a pickle": "frame(__import__('pickle').dumps(print))",
    "half a head": "os.write(1, b'\\x40\\0\\0\\0{'); os._exit(1)",
    "nothing at all": "os._exit(3)",
    "a crash": "os.kill(os.getpid(), 11)",
}


@pytest.mark.skipif(os.name != "posix", reason="a script takes the place of Python")
@pytest.mark.parametrize(
    "answer", [pytest.param(name, marks=[] if name.startswith("pixels b") else pytest.mark.slow) for name in ANSWERS]
)
def test_what_a_process_says_that_was_taken_over_is_refused(answer, tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text(RAVING.format(python=sys.executable, answer=ANSWERS[answer]))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script))
    ended: list[str] = []
    process = DecodingProcess(RequestLimits(), ended=ended.append)
    try:
        process.start()
        with pytest.raises(Refusal, match="image of 3 bytes cannot be decoded, its decoder crashed") as refused:
            process.decode(Encoded(b"abc"), PREPROCESSING)
        assert refused.value.status == 422
        assert not process.running
        assert ended == ["died"]
    finally:
        process.close()


@pytest.mark.parametrize("said", [b"[]", b"3", b"not JSON", b"[" * 100_000, b"\xff\xfe", pickle.dumps(print)])
def test_a_head_that_is_no_object_is_an_error(said):
    with pytest.raises(ValueError, match=r"head|JSON|codec|value|decode"):
        read_head(io.BytesIO(len(said).to_bytes(4, "little") + said))


def test_a_head_of_any_length_is_not_waited_for():
    with pytest.raises(ValueError, match="a head of 4294967295 bytes"):
        read_head(io.BytesIO(b"\xff" * 4))


def test_a_frame_that_ends_early_is_told_apart_from_a_wrong_one():
    said = io.BytesIO()
    write_frame(said, {"name": "cat.jpg"}, [b"abc"])
    whole = said.getvalue()
    assert read_head(io.BytesIO(whole)) == {"name": "cat.jpg", "sizes": [3]}
    end_of_head = len(whole) - 3
    for end in range(end_of_head):
        with pytest.raises(BrokenFrameError):
            read_head(io.BytesIO(whole[:end]))
    assert json.loads(whole[4:end_of_head])["sizes"] == [3]
