"""The command line as a whole: one look of help, one meaning per flag, errors that say what to type, signs of life."""

import argparse
import contextlib
import io
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ortcam
from ortcam.bundle.shipped import bundle_path
from ortcam.cli import main, printing, progress
from ortcam.cli.hints import SlowHint
from ortcam.cli.main import make_parser
from ortcam.cli.parsers import Parser
from ortcam.cli.progress import Bar, duration, stages
from ortcam.methods import METHODS, resolve_method
from ortcam.support.terminal import shortened

COMMANDS = dict(make_parser().commands)


def flags_of(parser: Parser) -> Iterator[argparse.Action]:
    yield from (action for action in parser.actions if action.option_strings and action.help != argparse.SUPPRESS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_sentence_an_example_that_parses_and_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = COMMANDS[name]
    for text in (parser.format_help(), parser.format_complete_help()):
        assert max(map(len, text.splitlines())) <= 80
        _usage, sentence, *_ = text.split("\n\n")
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert all(f"  {example}" in text for example in parser.examples)
    assert parser.examples
    for example in parser.examples:
        program, *arguments = shlex.split(example.partition(" > ")[0])
        assert program == "ortcam"
        assert make_parser().parse_args(arguments).command == name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_every_flag_with_its_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = COMMANDS[name]
    words = " ".join(parser.format_complete_help().partition("examples:")[2].split("\n\n", 1)[-1].split())
    for action in flags_of(parser):
        assert action.help, action.option_strings
        if action.default not in (None, False, [], argparse.SUPPRESS):
            assert "default" in words.partition(f"{action.option_strings[-1]} ")[2].partition(" --")[0], action
    assert ("--help-all" in parser.format_help()) == parser.has_more


def test_a_flag_means_the_same_in_every_command() -> None:
    shapes: dict[str, dict[Any, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, parser in COMMANDS.items():
        for action in flags_of(parser):
            choices = None if action.choices is None else tuple(action.choices)
            shape = (tuple(action.option_strings), action.nargs, choices)
            shapes[action.option_strings[-1]][shape].append(name)
    differing = {flag: dict(found) for flag, found in shapes.items() if len(found) > 1}
    assert differing == {}
    assert set(shapes["--output"]) == {(("-o", "--output"), None, None)}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_fits_a_screen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert len(COMMANDS[name].format_help().splitlines()) <= {"explain": 45, "export": 60, "batch": 60}.get(name, 50)


def test_ortcam_alone_greets_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed, complained = capsys.readouterr()
    assert complained == ""
    assert "ortcam demo" in printed
    assert all(f"\n  {name} " in printed for name in COMMANDS)
    assert len(printed.splitlines()) <= 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explian", "a"], "unknown command 'explian'; did you mean 'explain'?; see `ortcam --help`"),
        (["explain"], "MODEL and IMAGE are missing, such as `ortcam explain shapes photo.jpg`"),
        (["explain", "photo.jpg"], "IMAGE is missing, such as `ortcam explain shapes photo.jpg`"),
        (["explain", "m", "i", "--top-k"], "--top-k: one value expected: --top-k K"),
        (["explain", "m", "i", "--score", "-entropy"], "where it begins with a minus: --score=-entropy"),
        (["explain", "m", "i", "--colormap", "jett"], "--colormap: 'jett': accepted is turbo, viridis, jet; did you"),
        (["explain", "m", "i", "--json=3"], "--json"),
        (["demo", "photo.jpg"], "photo.jpg: `ortcam demo` takes no such argument; see `ortcam demo --help`"),
        (["explain", "m", "i", "--threads", "many"], "--threads: 'many': accepted is a whole number from 1 to 1024"),
    ],
)
def test_what_is_wrong_is_one_sentence_that_says_what_to_type(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert line.startswith("ortcam: ")
    assert message in line


def test_an_image_where_a_command_or_the_model_belongs_is_told(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(photograph)])
    assert "to explain an image: ortcam explain MODEL" in capsys.readouterr().err
    assert main(["explain", str(photograph), "shapes", "-o", str(tmp_path)]) == 2
    assert "is an image; the model comes first" in capsys.readouterr().err


def test_methods_are_listed_and_explained_with_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert main(["methods", "--json"]) == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    for method in METHODS:
        assert f"\n{method.name} " in f"\n{listed}"
        assert [option["name"] for option in records[method.name]["options"]] == [item.name for item in method.options]
        assert main(["methods", method.aliases[0] if method.aliases else method.name]) == 0
        words = " ".join(capsys.readouterr().out.split())
        for option in method.options:
            assert f"{option.name} {option.help} accepted: {option.accepted}" in words
        assert method.source in words
    assert main(["methods", "score"]) == 2
    assert "did you mean 'scorecam', 'scorecam++'?" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_flags_and_methods(tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    script = tmp_path / "completion.bash"
    with script.open("w") as file:
        subprocess.run([sys.executable, "-m", "ortcam", "completion", "bash"], stdout=file, check=True)
    for words, wanted in (
        (["ortcam", "ben"], ["benchmark"]),
        (["ortcam", "explain", "--sampl"], ["--sampling-error"]),
        (["ortcam", "explain", "m", "i", "-m", "rec"], ["recipro-cam"]),
        (["ortcam", "methods", "isc"], ["iscam"]),
    ):
        ask = (
            f"source {shlex.quote(str(script))}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
            "$(complete -p ortcam | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        assert done.stdout.split() == wanted


def test_completion_names_the_extra_where_its_library_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs shtab" in line
    assert "[completion]" in line


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        for name in ("monotonic", "perf_counter"):
            monkeypatch.setattr(time, name, lambda: self.now)


def test_a_log_file_gets_a_line_now_and_then_and_rarer_the_longer_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    with Bar("measuring", total=7200, unit="maps", quiet=False) as bar:
        for second in range(7200):
            clock.now = float(second)
            bar.update(second, note="cat.jpg")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ortcam: measuring: 0%, 10 of 7200 maps, cat.jpg, 10 s so far, about 2 h 0 min left"
    assert 30 < len(lines) < 100
    with Bar("measuring", total=9, quiet=True) as bar:
        clock.now += 1000
        bar.update(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("terminal", "shown"), [("xterm", True), ("dumb", False)])
def test_a_terminal_gets_a_bar_with_the_time_left_which_goes_away(
    terminal: str, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setenv("TERM", terminal)
    with Bar("explaining", total=4, quiet=False) as bar:
        bar.update(1, note="1/4 a\x1b[31m.jpg")
        bar.say("a hint")
    assert "ortcam: a hint\n" in screen.getvalue()
    assert ("explaining:" in screen.getvalue()) == shown
    assert ("left" in screen.getvalue()) == shown
    assert "\x1b[31m" not in screen.getvalue()


def test_a_stage_that_takes_long_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.02)
    with stages() as report:
        report("comparing")
        for _ in range(500):
            if "still comparing" in (seen := capsys.readouterr().err):
                break
            time.sleep(0.01)
    assert "still comparing, for " in seen
    with stages(quiet=True) as report:
        report("comparing")
    assert capsys.readouterr().err == ""


def test_a_step_that_takes_long_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.02)
    with Bar("evaluating", total=4, unit="maps", quiet=False) as bar:
        bar.update(0, note="cat.jpg")
        for _ in range(500):
            if "evaluating: 0%, 0 of 4 maps, cat.jpg" in (seen := capsys.readouterr().err):
                break
            time.sleep(0.01)
    assert "evaluating: 0%, 0 of 4 maps, cat.jpg" in seen


def test_times_and_names_are_short() -> None:
    assert [duration(value) for value in (0.4, 9.94, 59.4, 59.6, 600, 86400)] == [
        *("0.40 s", "9.9 s", "59 s", "1 min", "10 min", "24 h 0 min")
    ]
    for length in (5, 12, 13, 40):
        assert len(shortened("x" * 99, length)) == length
    assert shortened("a-long-name-of-a-photograph-0012.jpg", 20) == "a-long-nam...012.jpg"


def explanation(**stats: Any) -> Any:
    settings = {
        "scored_channels": 9,
        "live_channels": 9,
        "passes": 9,
        "head_passes": 0,
        "passes_in_words": "9 passes",
        "seconds": 1.5,
        "seconds_late": 0.0,
        "estimated_error": None,
        "standard_error": None,
        "simplified": (),
        "copies": 1,
    } | stats
    return SimpleNamespace(
        method="scorecam++",
        targets=(3, 100_000),
        labels=("a label that is much longer than any terminal, as some are in ImageNet" * 2, "dog"),
        probabilities=np.array([1.0, 1e-9]),
        flat=np.array([False, False]),
        are_probabilities=True,
        stats=SimpleNamespace(**settings),
        chosen="scorecam++: a reason that is as long as such a reason may be, and says in one line what was measured",
    )


@pytest.mark.parametrize("columns", [80, 40])
def test_a_summary_fits_the_terminal_whatever_the_names(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "photographs/of a summer/" + "x" * 200 + ".jpg"
    late = explanation(seconds_late=3.0, simplified=("error of the map: not estimated",), scored_channels=2)
    printing.print_image(name, [explanation(), late], None)
    printing.print_row(name, [explanation(), late])
    printing.print_row("a.jpg", [explanation(estimated_error=(0.04,), scored_channels=2)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].endswith("x.jpg")


@pytest.mark.parametrize(
    ("estimate", "words", "word"),
    [((1.0,), "error not known yet", "error not known yet"), ((0.043,), "estimated error 0.043", "error 0.04")],
)
def test_an_error_that_is_not_known_is_called_so(
    estimate: tuple[float, ...], words: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    unsure = explanation(estimated_error=estimate, scored_channels=2)
    printing.print_image("a.jpg", [unsure], None)
    assert words in capsys.readouterr().out
    printing.print_row("a.jpg", [unsure])
    assert capsys.readouterr().out.rstrip().endswith(word)


@pytest.mark.parametrize(
    ("method", "per_pass", "hint"),
    [
        ("scorecam", 0.1, "an exact map takes 1 min 40 s; --budget 12%: 12 s, typically within 0.1"),
        ("iscam", 0.1, "an exact map takes 1 min 40 s; --budget 12%: 12 s, with an estimate of its error"),
        ("scorecam", 0.001, None),
    ],
)
def test_a_slow_map_gets_one_hint_that_follows_from_its_first_passes(
    method: str, per_pass: float, hint: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    plan = resolve_method(method, {}).plan
    slow = SlowHint(ortcam.read_bundle(bundle_path()).manifest, explanations=1)
    said = []
    for _ in range(2):
        slow.begin()
        clock.now += 30  # sessions are opened: that says nothing
        for done in range(10, 1001, 10):
            clock.now += 10 * per_pass
            said.append(slow.after(plan, done, 1000))  # type: ignore[arg-type]
    assert [line for line in said if line] == ([hint] if hint else [])


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), ("Terminated", 143)])
def test_what_is_finished_is_kept_where_a_command_is_interrupted(
    error: Any,
    code: int,
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ortcam.cli.common import Terminated

    real, calls = ortcam.Explainer.explain_request, []

    def explain(self: ortcam.Explainer, *arguments: Any, **named: Any) -> ortcam.Explanation:
        calls.append(1)
        if len(calls) == 2:
            raise Terminated if error == "Terminated" else error
        return real(self, *arguments, **named)

    monkeypatch.setattr(ortcam.Explainer, "explain_request", explain)
    arguments = ["explain", str(tiny_bundle), *[str(photograph)] * 3, "-m", "eigen-cam", "-o", str(tmp_path / "out")]
    assert main(arguments) == code
    told = capsys.readouterr().err.splitlines()
    lines = [line for line in told if not line.startswith("ortcam: explaining:")]  # of a busy machine
    assert lines[0] == f"ortcam: 1 of 3 images are explained and kept in {tmp_path / 'out'}"
    assert len(lines) == 2
    assert (tmp_path / "out" / "index.html").exists()
    assert (tmp_path / "out" / "photo.png").exists()


def test_a_page_of_somebody_else_is_found_before_the_work(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("mine")
    assert main(["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path / "out")]) == 2
    assert "is not a page that ortcam wrote" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]


def test_many_images_get_a_line_each_and_totals_and_one_image_gets_a_page(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(tiny_bundle), "-m", "eigen-cam,cam", "-o", str(tmp_path / "out")]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert main([*command, str(photograph), str(photograph), str(broken)]) == 2
    first, second, totals, last = capsys.readouterr().out.splitlines()
    assert first.partition("%")[0] == second.partition("%")[0]
    assert totals.startswith("2 images explained in ")
    assert totals.endswith(" on CPU, 1 with errors")
    assert last == f"open {tmp_path / 'out' / 'index.html'}"
    assert main([*command, str(photograph), "--top-k", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["index"] == str(tmp_path / "out" / "index.html")
    assert {item["sheet"] for item in printed["explanations"]} == {str(tmp_path / "out" / "photo.png")}
    with contextlib.chdir(tmp_path):
        assert main(["explain", str(tiny_bundle), str(photograph), "-m", "eigen-cam,cam", "-o", "new"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert [line.split()[0] for line in lines[2:4]] == ["eigen-cam", "cam"]
    assert lines[4:] == ["  new/photo.png", lines[5], "open new/index.html"]
