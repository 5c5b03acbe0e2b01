"""Every code block of README.md and docs/ runs, in a folder with the files that they speak of.

Blocks of `sh` and `python` run in order, one namespace per page. A comment above a block that cannot run here says why:
`<!-- skip: next "reason" -->`, or `<!-- skip: next if(fast, reason="...") -->` for what `make test-slow` runs alone.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import cv2
import filelock
import onnx
import pytest
import skimage.data
import torch
import torchvision
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from tests.conftest import REPOSITORY
from tests.project.layering import LAYERS

import ortcam.bundle.shipped
from ortcam.images.encoding import write_png

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md"]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
WITH_BLOCKS = [page for page in PAGES if re.search(r"^```(sh|python)$", page.read_text("utf-8"), re.MULTILINE)]
# Those of `make test`. The others, and the slow blocks of these, run with `make test-slow`.
QUICK = [REPOSITORY / "README.md", REPOSITORY / "docs" / "tutorials" / "first-map.md"]
SLOW = [page for page in WITH_BLOCKS if page not in QUICK or "if(fast" in page.read_text("utf-8")]

MY_MODELS = """
import torch

def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 12, 7, 4), torch.nn.ReLU(), torch.nn.Conv2d(12, 24, 3, 4), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(24, 7),
    )
"""


def run_shell(example: Example) -> None:
    """Run a block of shell; ortcam and python are those of this environment."""
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    where = f"{example.path}, line {example.line}"
    assert result.returncode == 0, f"{where}:\n{example.parsed}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr, f"{where}:\n{result.stderr}"


PARSED = Sybil([PythonCodeBlockParser(), CodeBlockParser("sh", run_shell), SkipParser()])


@pytest.fixture(scope="session")
def shelf(shared: Path) -> Path:
    """The files that pages speak of, and a cache of exports."""
    folder = shared / "pages"
    with filelock.FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _fill(folder)
            (folder / "done").touch()
    return folder


def _fill(folder: Path) -> None:
    files = folder / "files"
    (files / "photographs").mkdir(parents=True)
    for name, picture in (("cat", skimage.data.chelsea()), ("coffee", skimage.data.coffee())):
        cv2.imwrite(str(files / f"{name}.jpg"), cv2.cvtColor(cv2.resize(picture, (300, 200)), cv2.COLOR_RGB2BGR))
    for name in ("cat.jpg", "coffee.jpg"):
        shutil.copy(files / name, files / "photographs")
    for picture in ortcam.bundle.shipped.sample_images():
        shutil.copy(picture, files)
        shutil.copy(picture, files / "photographs")
    for number in range(2):
        write_png(files / "photographs" / f"plain-{number}.png", skimage.data.astronaut()[number::2, ::2])
    (files / "upload.bin").write_bytes((files / "cat.jpg").read_bytes())
    (files / "images.csv").write_text("file,class,boxes\nmug-umbrella.png,umbrella,30 40 150 160\nfish.png,fish,\n")
    (files / "my_models.py").write_text(MY_MODELS)
    labels = ortcam.load(ortcam.bundle.shipped.bundle_path()).labels
    (files / "labels.txt").write_text("\n".join(labels) + "\n")
    parts = (onnx.load(ortcam.bundle.shipped.bundle_path() / f"{name}.onnx") for name in ("features", "head"))
    onnx.save(onnx.compose.merge_models(*parts, io_map=[("features", "features")]), files / "model.onnx")
    # Where torchvision would put the weights that it downloads: random ones.
    weights = folder / "torch" / "hub" / "checkpoints"
    weights.mkdir(parents=True)
    torch.manual_seed(0)
    for name in ("resnet18", "mobilenet_v2"):
        file = torchvision.models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
        torch.save(torchvision.models.get_model(name).state_dict(), weights / file)


@pytest.fixture
def workplace(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that pages speak of; it is the current one."""
    folder = tmp_path / "workplace"
    shutil.copytree(shelf / "files", folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("ORTCAM_CACHE", str(shelf / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(shelf / "torch"))
    return folder


def _run(page: Path, *, fast: bool) -> None:
    document: Document = PARSED.parse(page)
    document.namespace["fast"] = fast
    examples = list(document.examples())
    source = "\n".join(example.parsed for example in examples if isinstance(example.parsed, str))
    for name in ("resnet18.ortcam", "model.ortcam"):
        if name in source and f"-o {name}" not in source:  # stands in for what the page does not make itself
            shutil.copytree(ortcam.bundle.shipped.bundle_path(), name)
    for example in examples:
        try:
            example.evaluate()
        except SkipTest:
            continue


@pytest.mark.slow
@pytest.mark.parametrize("page", QUICK, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_quick_code_blocks_of_a_page_run(page: Path, workplace: Path) -> None:
    _run(page, fast=True)


@pytest.mark.long
@pytest.mark.whole
@pytest.mark.parametrize("page", SLOW, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_all_code_blocks_of_a_page_run(page: Path, workplace: Path) -> None:
    _run(page, fast=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_no_code_block_escapes_by_its_language(page: Path) -> None:
    fences = re.findall(r"^ *```(.*)$", page.read_text("utf-8"), re.MULTILINE)
    assert set(fences[::2]) <= {"sh", "python", "text", "json"}
    assert set(fences[1::2]) <= {""}


@pytest.mark.slow
@pytest.mark.parametrize("block", ["```python\nassert 1 == 2\n```\n", "```sh\nortcam explain no.ortcam cat.jpg\n```\n"])
def test_a_block_that_fails_is_an_error(block: str, tmp_path: Path, workplace: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(block)
    with pytest.raises(AssertionError):
        _run(page, fast=True)


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "llms.txt"])
def test_links_to_files_of_the_repository_hold(name: str) -> None:
    text = (REPOSITORY / name).read_text("utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^()\s]+)\)", text)]
    missing = [target for target in targets if "://" not in target and not (REPOSITORY / target).exists()]
    assert not missing


def test_the_map_for_language_models_names_every_page() -> None:
    text = (REPOSITORY / "llms.txt").read_text("utf-8")
    generated = {"docs/index.md", "docs/how-to/index.md", "docs/reference/python.md", "docs/reference/python-export.md"}
    generated |= {"docs/reference/command-line.md", "docs/reference/errors.md"}
    pages = {page.relative_to(REPOSITORY).as_posix() for page in PAGES} - generated
    assert not {page for page in pages if f"({page})" not in text}


CODE = REPOSITORY / "docs" / "explanation" / "code.md"
PACKAGES = (REPOSITORY / "runtime" / "ortcam", REPOSITORY / "export" / "ortcam_export")


def drawn_tree(text: str) -> set[Path]:
    """The files and folders of a tree drawn by indentation, two spaces per level, with words behind each name."""
    found: set[Path] = set()
    above: list[str] = []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [line.split()[0].rstrip("/")]
        found.add(REPOSITORY.joinpath(*above))
    return found


def test_the_page_about_the_code_draws_the_tree_that_is_there() -> None:
    drawn = drawn_tree(re.findall(r"^```text\n(.*?)^```$", CODE.read_text("utf-8"), re.MULTILINE | re.DOTALL)[0])
    assert not [path for path in drawn if not path.exists()]
    folders = {path.parent for package in PACKAGES for path in package.rglob("*.py")}
    modules = {path for package in PACKAGES for path in package.glob("*.py") if not path.name.startswith("_")}
    assert not (folders | modules) - drawn


FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def definitions(path: Path) -> set[str]:
    """Functions, classes and methods of a module: `f`, `C`, `C.method`; and constants."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            found |= {ast.unparse(target) for target in getattr(node, "targets", [getattr(node, "target", node)])}
        if isinstance(node, FUNCTIONS | ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}.{part.name}" for part in ast.walk(node) if isinstance(part, FUNCTIONS)}
    return found


def test_the_page_about_the_code_names_what_is_there() -> None:
    """A path in backticks exists, and the names behind it in a row are defined in that file."""
    roots = {"image": PACKAGES, "export": PACKAGES[::-1]}
    text = re.sub(r"^```.*?^```$", "", CODE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    package = PACKAGES
    for row in text.splitlines():
        package = roots.get(row.rpartition(" ")[2], package) if row.startswith("## ") else package
        file: Path | None = None
        for name in re.findall(r"`([\w./]+)`", row):
            if "/" in name or name.endswith(".py"):
                order = PACKAGES if f"the runtime's `{name}`" in row else package
                places = [root / name for root in (*order, REPOSITORY) if (root / name).exists()]
                assert places, f"{name} in: {row}"
                file = places[0] if row.startswith("|") and places[0].is_file() else None
            elif file is not None:
                assert name in definitions(file), f"{file} has no {name}, of which speaks: {row}"


def test_the_page_about_the_code_lists_the_layers() -> None:
    rows = re.findall(r"^\d+\. (.*)$", CODE.read_text("utf-8"), re.MULTILINE)
    listed = [set(re.findall(r"`(\w+)(?:\.py)?`", row)) for row in rows]
    assert listed == [set(rooms) - {"_version"} for rooms in LAYERS if not {"", "__main__"} & set(rooms)]


def test_one_version_in_all_places() -> None:
    version = ortcam.__version__
    assert f"\nversion: {version}\n" in (REPOSITORY / "CITATION.cff").read_text("utf-8")
    sections = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert next(section for section in sections if section != "Unreleased") == version


def test_every_page_has_a_place_on_the_site() -> None:
    listed = re.findall(r"(?:: |- )(\S+\.md)$", (REPOSITORY / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    results = [f"results/{page.name}" for page in (REPOSITORY / "benchmarks" / "results").glob("*.md")]
    pages = [page.relative_to(REPOSITORY / "docs").as_posix() for page in (REPOSITORY / "docs").rglob("*.md")]
    assert sorted({*results, *pages} - set(listed)) == []


@pytest.mark.long
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    result = subprocess.run(
        # Without --quiet, which hides warnings from --strict, too.
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "site" / "reference" / "command-line.html").read_text("utf-8")
    assert "generate:" not in page
    assert "--budget" in page
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text("utf-8"))
    assert len(index["docs"]) > 100
