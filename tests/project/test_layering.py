"""The house keeps its rules: arrows point down, nothing is too wide or too long, private names stay private."""

from pathlib import Path

import pytest

from tests.project import layering
from tests.project.layering import broken_rules, modules_of

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_house_keeps_its_rules() -> None:
    assert broken_rules(REPOSITORY) == []


def _tree(root: Path, files: dict[str, str]) -> Path:
    packages = ("runtime/ortcam", "export/ortcam_export", "benchmarks", "tests", "models")
    everything = {**{f"{package}/__init__.py": '"""A package."""\n' for package in packages}, **files}
    for place, text in everything.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    return root


LONG = "\n".join(f"    x = {number}" for number in range(61))
WRONG = {
    "an arrow up": (
        "runtime/ortcam/images/a.py",
        "from ortcam.results.saved import save",
        "layers: ortcam.images.a imports ortcam.results.saved",
    ),
    "a lazy arrow up": (
        "runtime/ortcam/images/a.py",
        "def f():\n    import ortcam.results.saved",
        "layers: ortcam.images.a imports ortcam.results.saved",
    ),
    "an arrow up for types": (
        "runtime/ortcam/images/a.py",
        "if TYPE_CHECKING:\n    from ortcam.results import saved",
        "layers: ortcam.images.a imports ortcam.results.saved",
    ),
    "an arrow up with dots": (
        "runtime/ortcam/images/a.py",
        "from ..results import saved",
        "layers: ortcam.images.a imports ortcam.results.saved",
    ),
    "a room in no layer": (
        "runtime/ortcam/garage/a.py",
        "from ortcam.results import saved",
        "layers: ortcam.garage.a imports ortcam.results.saved, and one of them is in no layer",
    ),
    "rooms beside each other": (
        "runtime/ortcam/models/a.py",
        "import ortcam.results.saved",
        "layers: ortcam.models.a imports ortcam.results.saved",
    ),
    "a circle with a dot": (
        "runtime/ortcam/results/a.py",
        "from . import a_too",
        "circle: ortcam.results.a -> ortcam.results.a_too -> ortcam.results.a",
    ),
    "a circle of the export": (
        "export/ortcam_export/a.py",
        "import ortcam_export.a_too",
        "circle: ortcam_export.a -> ortcam_export.a_too -> ortcam_export.a",
    ),
    "a circle": (
        "runtime/ortcam/results/a.py",
        "from ortcam.results import a_too",
        "circle: ortcam.results.a -> ortcam.results.a_too -> ortcam.results.a",
    ),
    "torch at serve time": (
        "runtime/ortcam/cli/a.py",
        "def f():\n    import torch.nn",
        "heavy: ortcam.cli.a imports torch.nn",
    ),
    "an export of the command line": (
        "export/ortcam_export/a.py",
        "from ortcam.cli import main",
        "export: ortcam_export.a imports ortcam.cli",
    ),
    "an export of what scoring keeps": (
        "export/ortcam_export/a.py",
        "from ortcam.scoring.loop import f",
        "export: ortcam_export.a imports f, which ortcam.scoring does not offer",
    ),
    "no title": ("tests/a.py", "# Not a docstring.", "first line: tests/a.py does not say what it is for"),
    "a long function": ("benchmarks/a.py", f"def f():\n{LONG}", "function: benchmarks.a.f is long"),
    "a long file of the model": ("models/a.py", "\n" * 400, "file: models/a.py is long"),
    "a long template": ("runtime/ortcam/results/a.css", "\n" * 401, "file: runtime/ortcam/results/a.css is long"),
    "a long file": ("benchmarks/a.py", "\n" * 400, "file: benchmarks/a.py is long"),
    "many parameters": (
        "runtime/ortcam/cli/a.py",
        "def f(a, b, c, d, e, f, *, g, h, i, j, k, l, m): ...",
        "parameters: ortcam.cli.a.f has too many",
    ),
    "a private name": ("tests/a.py", "from ortcam.results.saved import _save", "private: tests/a.py uses _save"),
    "a private name, patched": (
        "tests/a.py",
        "monkeypatch.setattr(saved, '_save', None)",
        "private: tests/a.py uses _save",
    ),
    "a private name, read by its text": (
        "tests/a.py",
        "getattr(saved, '_save')",
        "private: tests/a.py uses _save",
    ),
    "a private name, patched by its path": (
        "benchmarks/a.py",
        "mock.patch('ortcam.results.saved._save')",
        "private: benchmarks/a.py uses _save",
    ),
    "a private name of an object": ("tests/a.py", "explainer._save()", "private: tests/a.py uses _save"),
}
AROUND = {
    "runtime/ortcam/results/saved.py": "def save(): ...\ndef _save(): ...",
    "runtime/ortcam/results/a_too.py": "def f():\n    import ortcam.results.a",
    "export/ortcam_export/a_too.py": "def f():\n    import ortcam_export.a",
    "runtime/ortcam/cli/__init__.py": "main = print",
    "runtime/ortcam/scoring/__init__.py": "__all__ = ['g']",
    "runtime/ortcam/scoring/loop.py": "def f(): ...\ndef g(): ...",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_what_breaks_a_rule_is_found(what: str, tmp_path: Path) -> None:
    place, text, complaint = WRONG[what]
    titled = {name: f'"""Around."""\n{body}\n' for name, body in AROUND.items()}
    assert broken_rules(_tree(tmp_path, titled)) == []
    title = "" if what == "no title" else '"""Wrong."""\n'
    assert broken_rules(_tree(tmp_path, {**titled, place: title + text})) == [complaint]


def test_a_folder_with_too_much_is_found(tmp_path: Path) -> None:
    many = {f"runtime/ortcam/images/f{number}.py": '"""One of many."""' for number in range(layering.MOST_ENTRIES + 1)}
    assert broken_rules(_tree(tmp_path, many)) == ["entries: runtime/ortcam/images shows too many"]


@pytest.mark.parametrize(("reason", "told"), [("One file because its rows are read together.", True), ("Long.", False)])
def test_a_long_file_may_give_a_reason(reason: str, told: bool, tmp_path: Path) -> None:
    title = f'"""A table.\n\n{reason}\n"""'
    found = broken_rules(_tree(tmp_path, {"benchmarks/a.py": title + "\n" * 400}))
    assert found == ([] if told else ["file: benchmarks/a.py is long"])


def test_every_room_is_in_a_layer() -> None:
    rooms = {module.room for module in modules_of(REPOSITORY / "runtime", "ortcam").values()}
    assert rooms == {room for layer in layering.LAYERS for room in layer}
