"""What is printed is safe for a terminal and stops nothing, whatever standard output and its encoding are."""

import doctest
import io
import json
import sys

import pytest

import ortcam.support.extras
import ortcam.support.terminal
from ortcam.errors import OutputError
from ortcam.support.terminal import as_text, complain, guarded_output, json_text, printable

HOSTILE = "a\x1b[31m\x07\x9b\u202egnp\u2066\u2028\r\udce9\ud83dé日"


def test_the_examples_in_docstrings_hold() -> None:
    for module in (ortcam.support.extras, ortcam.support.terminal):
        assert doctest.testmod(module).failed == 0


def test_a_text_is_one_line_with_nothing_that_a_terminal_obeys() -> None:
    assert printable(f"{HOSTILE}\n\t") == (r"a\x1b[31m\x07\x9b\u202egnp\u2066\u2028\x0d\xe9\ud83dé日\n\t")
    assert printable("plain, über, 日本, می\u200cخواهم 👩\u200d🔬") == "plain, über, 日本, می\u200cخواهم 👩\u200d🔬"


def test_texts_of_json_are_unicode_and_all_else_stays() -> None:
    value = {"a\udce9": [1, 2.5, None, True, ("b\ud800", "\x1b")]}
    assert as_text(value) == {"a\\xe9": [1, 2.5, None, True, ("b\\ud800", "\x1b")]}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_json_is_json_in_every_encoding_and_safe_for_a_terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    text = json_text({"label": HOSTILE, "value": float("nan"), "others": (float("inf"), 1.5)})
    assert not set(text.encode(encoding).decode(encoding)) & set("\x1b\x9b\u202e\u2066\u2028\r")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "label": as_text(HOSTILE),
        "value": None,
        "others": [None, 1.5],
    }


@pytest.mark.parametrize(
    ("encoding", "printed"), [("ascii", r"caf\xe9 \u65e5"), ("cp1252", r"café \u65e5"), ("utf-8", "café 日")]
)
def test_what_an_encoding_lacks_is_escaped(encoding: str, printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(target, encoding, errors="strict", newline="\n"))
    with guarded_output() as conclude:
        print("café 日")
        print("\x1b[2J", end="")
        conclude()
        assert sys.stdout.encoding == encoding
        assert not sys.stdout.isatty()
    assert target.getvalue().decode(encoding) == f"{printed}\n\\x1b[2J"


def test_it_is_closed_in_silence_after_what_it_printed_to(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open(1, "w", closefd=False) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with guarded_output() as conclude:
            ours = sys.stdout
            print("done")
            conclude()
        ours.close()  # as when it is collected
    assert capfd.readouterr() == ("done\n", "")


class Failing(io.TextIOBase):
    """A standard output that fails after so many writes."""

    def __init__(self, error: OSError, after: int) -> None:
        self.error, self.left, self.written = error, after, ""

    def write(self, text: str) -> int:
        if not self.left:
            raise self.error
        self.left -= 1
        self.written += text
        return len(text)


def test_a_full_output_stops_nothing_and_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Failing(OSError(28, "No space left on device"), after=2)
    monkeypatch.setattr(sys, "stdout", output)
    with guarded_output() as conclude:
        for number in range(5):
            print(number)
        with pytest.raises(OutputError, match="standard output: cannot be written to: No space left on device"):
            conclude()
    assert output.written == "0\n"
    assert sys.stdout is output


def test_a_reader_that_has_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(BrokenPipeError(32, "Broken pipe"), after=0))
    with guarded_output() as conclude:
        print("something")
        conclude()


def test_a_closed_output_is_an_error_only_for_what_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with guarded_output() as conclude:
        conclude()
        assert sys.stderr is not None, "progress bars and warnings print somewhere"
        print("something")
        with pytest.raises(OutputError, match="standard output"):
            conclude()
    assert sys.stderr is None


def test_a_complaint_is_one_safe_line_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    complain("a\nb\x1b[31m")
    assert capsys.readouterr() == ("", "ortcam: a\\nb\\x1b[31m\n")
    for broken in (None, Failing(OSError(28, "No space left on device"), after=0)):
        monkeypatch.setattr(sys, "stderr", broken)
        complain("lost")
