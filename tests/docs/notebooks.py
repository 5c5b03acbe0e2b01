"""Run the notebooks of docs/notebooks again and keep what they print and show (`make notebooks`)."""

import base64
import os
import tempfile
from pathlib import Path
from typing import Final

import cv2
import nbformat
import numpy as np
from nbclient import NotebookClient
from nbformat import NotebookNode

__all__ = ["FOLDER", "run"]

FOLDER: Final = Path(__file__).parents[2] / "docs" / "notebooks"
_SECONDS: Final = 300  # for a cell, on a busy machine
_WIDEST: Final = 900  # pixels of a picture that is kept
_QUALITY: Final = 75
_USERS_CACHE: Final = "~/.cache/ortcam"


def run(path: Path) -> NotebookNode:
    """A notebook with the outputs that it has now; whatever a cell raises is raised.

    It runs in an empty folder and with an empty cache, on one core.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"ORTCAM_CACHE": str(Path(folder, "cache")), "OMP_NUM_THREADS": "1"}
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", resources=resources).execute(env=env)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
        for output in cell.get("outputs", ()):
            if "data" in output:
                _shrink(output)
            if "text" in output:  # no path of this machine
                output.text = output.text.replace(str(Path(folder, "cache")), _USERS_CACHE).replace(folder, ".")
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs with each stream in one piece, wherever the kernel cut it."""
    joined: list[NotebookNode] = []
    for output in outputs:
        before = joined[-1] if joined else None
        if before is not None and output.output_type == "stream" == before.output_type and output.name == before.name:
            before.text += output.text
        else:
            joined.append(output)
    return joined


def _shrink(output: NotebookNode) -> None:
    """Keep one picture of each output, as a JPEG."""
    found = output.data.pop("image/png", None)
    if found is None:
        return
    output.data.pop("text/html", None)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(found), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    if picture.shape[1] > _WIDEST:
        size = _WIDEST, round(picture.shape[0] * _WIDEST / picture.shape[1])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    output.data["image/jpeg"] = base64.b64encode(encoded).decode() + "\n"


def main() -> None:
    """Run all of them and write them back."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        print(path.name, flush=True)
        nbformat.write(run(path), path)


if __name__ == "__main__":
    main()
