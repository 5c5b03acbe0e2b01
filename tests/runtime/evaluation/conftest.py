"""Images to evaluate on, and pages of evaluations that measure nothing."""

import csv
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.evaluation.pages import METHODS, METRICS, MORE, PREPROCESSING, Page

from ortcam.evaluation.dataset import Example
from ortcam.evaluation.entries import baselines
from ortcam.evaluation.journal import Journal
from ortcam.evaluation.measuring import THUMBNAIL, Measurement
from ortcam.evaluation.protocols import resolve_protocol
from ortcam.evaluation.report.gallery import Photographs
from ortcam.evaluation.report.page import write_report
from ortcam.evaluation.report.verdict import reach_verdict
from ortcam.evaluation.results import collect, summarise
from ortcam.images.encoding import write_png
from ortcam.images.photograph import read_photograph

COUNT = 5


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(COUNT):
        small = np.random.default_rng(seed).integers(0, 256, (8, 12, 3))
        write_png(folder / f"{seed}.png", np.kron(small, np.ones((4, 4, 1))).astype(np.uint8))
    rows = "".join(f"{seed}.png,{seed % 3},8 6 30 25\n" for seed in range(COUNT))
    (tmp_path / "images.csv").write_text("file,class,boxes\n" + rows)
    return tmp_path / "images.csv"


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def report(tmp_path):
    """A function that measures nothing, writes a report of what it is told, and returns the page and its path."""

    def read(path):
        return read_photograph(path, PREPROCESSING, max_pixels=10_000)

    def write(names, scores=None, *, methods=METHODS, wanted=METRICS, more=None, gone=(), labels=()):
        """`scores(image, method)`, numbered from 0, gives scores by metric; baselines are the last three methods."""
        entries = [*methods, *baselines(0)]
        examples = [Example(name, tmp_path / "photographs" / name) for name in names]
        share = np.linspace(0, 1, 11)
        with Journal(tmp_path / "out", {}, resume=False) as journal:
            for image, example in enumerate(examples):
                if example.name not in gone:
                    example.path.parent.mkdir(parents=True, exist_ok=True)
                    example.path.write_bytes(_png(tmp_path, image))
                for method, entry in enumerate(entries):
                    values = _scores(image, method) | (scores(image, method) if scores else {})
                    journal.add(_measurement(example.name, entry.name, values, wanted))
            results = collect(journal, names, entries, wanted, share)
            summary = summarise(results, resolve_protocol("soft-map"), seed=0)
            path = tmp_path / "out" / "report.html"
            write_report(
                path,
                results,
                summary,
                reach_verdict(results, summary),
                journal,
                Photographs(examples, read, PREPROCESSING, labels),
                MORE | (more or {}),
            )
        return Page(path)

    return write


def _png(folder, image):
    """Blue, with a red left half."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[..., 2] = 100 + image
    pixels[:, :24] = 220, 30, 20
    write_png(folder / "picture.png", pixels)
    return (folder / "picture.png").read_bytes()


def _scores(image, method):
    rng = np.random.default_rng((image, method))
    return dict.fromkeys(METRICS, 0.0) | {"adcc": rng.uniform(40, 60), "average-drop": rng.uniform(0, 30)}


def _measurement(name, entry, values, wanted):
    curves = {key: np.linspace(0.1, 0.9, 11).tolist() for key in wanted if key.startswith(("insertion", "deletion"))}
    thumbnail = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    thumbnail[:, THUMBNAIL // 2 :] = 255
    return Measurement(
        image=name,
        variant=entry,
        label=1,
        target=1,
        probability=0.75,
        clean=0.75,
        masked=values["adcc"] / 100,
        flat=False,
        seconds=0.5,
        passes=64,
        scores={key: values[key] for key in wanted if key in values and key != "win"},
        curves=curves,
        thumbnail=thumbnail,
    )
