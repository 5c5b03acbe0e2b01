"""The benchmark of Qualcomm's emulated NPU: what its page says of figures, with the provider and without it."""

from typing import Any

import pytest
from benchmarks.common.machine import describe_run
from benchmarks.fused import npu

MAP = {"model": "shapes", "what": "scorecam, NPU, qnn", "pearson": [0.99, 0.97, 0.98], "apart": [0.01, 0.04, 0.02]}
SOFTSIGN = {"partitions": 2, "left": ["Softsign"]}
NODES = {"model": "shapes", "graph": "scorer-softsign", "predicted": SOFTSIGN, "found": {"partitions": 1, "left": []}}


@pytest.mark.parametrize("there", [True, False])
def test_maps_are_told_by_their_likeness_and_nodes_only_where_the_provider_is(there: bool) -> None:
    models: dict[str, Any] = {"shapes": {"maps": [MAP], "nodes": [NODES] if there else []}}
    settings = {"images": 3, "budget": 32, "npu": "2.7.0" if there else None}
    text = npu.render(models, settings, describe_run("benchmarks.fused.npu", []))
    assert "| shapes | scorecam, NPU, qnn | 0.98000 | 0.97000 | 0.0400 |" in text
    assert ("| shapes | scorer-softsign | 2, without Softsign (1) | 1, all nodes |" in text) is there
    assert ("`onnxruntime-qnn` was not installed" in text) is not there
    assert ("emulates it" in text) is there
    names = [figure.name for figure in npu.figures(models)]
    assert len(set(names)) == len(names) == 2


def test_more_pictures_than_are_kept_from_calibration_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npu, "bundle_of", lambda *_: pytest.fail("it began"))
    with pytest.raises(SystemExit):
        npu.main(["--images", str(npu.PICTURES_AT_MOST + 1)])


@pytest.mark.slow
def test_pictures_of_the_shipped_model_are_drawings() -> None:
    (drawing,) = npu.pictures("shapes", 1)
    assert drawing.shape == (224, 224, 3)
