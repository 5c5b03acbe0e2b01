"""Bands, values and scores on Ray: the rows of the local engine bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.common.batches import draw_images, in_process, same, table_of
from tests.conftest import BANDS_BUNDLE, VALUES_BUNDLE

import ortcam
from ortcam.request import Score

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays of four bands, 16 bits deep, and one of three, which the model does not take."""
    folder = tmp_path_factory.mktemp("fields")
    for seed in range(3):
        np.save(folder / f"{seed}.npy", np.random.default_rng(seed).integers(0, 9000, (40, 60, 4), np.uint16))
    np.save(folder / "three.npy", np.zeros((40, 60, 3), np.uint16))
    return folder


def rows_of_both(monkeypatch: pytest.MonkeyPatch, bundle: Path, source: Path, out: Path, **asked: Any) -> list[Any]:
    tables = []
    for engine in ("ray", "local"):
        with monkeypatch.context() as patch:
            patch.setattr("ortcam.batch.local.driver.run_local", in_process)
            ortcam.batch.run(bundle, source, out / engine, engine=engine, batch_size=4, **asked)
        tables.append(table_of(out / engine).drop_columns(["seconds"]))
    return tables


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "scorecam", "score": "water - field"},
        {"method": "grad-cam", "score": Score("cosine:query", arrays={"query": np.array([0.5, -0.25, 1.0])})},
    ],
    ids=["masked", "gradient"],
)
def test_bands_and_scores_of_them(
    asked: dict[str, Any], ray_here: None, fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, local = rows_of_both(monkeypatch, BANDS_BUNDLE, fields, tmp_path, **asked)
    assert same(ray, local)
    errors = ray["error"].to_pylist()
    assert [error is None for error in errors] == [True, True, True, False]
    assert ray["label"].to_pylist()[:3] == [str(getattr(asked["score"], "text", asked["score"]))] * 3


def test_values(ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_images(tmp_path / "in", 2)
    ray, local = rows_of_both(
        monkeypatch, VALUES_BUNDLE, tmp_path / "in", tmp_path / "out", method="scorecam", target="age"
    )
    assert same(ray, local)
    assert set(ray["label"].to_pylist()) == {"age"}
    assert None not in ray["value"].to_pylist()
