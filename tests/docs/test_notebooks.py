"""The notebooks run as they are, and what is committed of them is small and from no particular machine."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
from tests.docs.notebooks import FOLDER, run

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST = 300_000  # bytes of pictures, in all notebooks together


def shapes(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The kinds of outputs of each cell that has any: what it prints and what it shows."""
    kinds = [
        [kind for output in cell.outputs for kind in (output.get("data") or [output.name])]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    return [sorted(of_cell) for of_cell in kinds]


@pytest.mark.long
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])
def test_a_notebook_runs_and_gives_outputs_of_the_kinds_that_are_committed(path: Path) -> None:
    assert shapes(run(path)) == shapes(nbformat.read(path, as_version=4))


def test_there_are_three_and_their_pictures_are_small() -> None:
    assert len(NOTEBOOKS) == 3
    pictures = [
        base64.b64decode(output.data["image/jpeg"])
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", ())
        if "image/jpeg" in output.get("data", {})
    ]
    assert len(pictures) >= 4
    assert sum(map(len, pictures)) < MOST


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])
def test_nothing_of_the_machine_is_committed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"(/tmp|/home|/root|/work|/Users|[A-Z]:\\)", text)
