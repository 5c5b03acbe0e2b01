"""The key of an export in the cache: every option is part of it, and a file is its content and not its name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortcam.models.export_options import EXPORT_OPTIONS
from ortcam.models.identity import key_of

# One other value per option that came with channels, further inputs and embeddings.
OTHERS: dict[str, Any] = {
    "channels": 4,
    "mean": (0.5,),
    "std": (0.5,),
    "value_range": (0.0, 65535.0),
    "channel_order": "grey",
    "display": (2, 1, 0),
    "baseline_value": "zero",
    "inputs": {"scale": "1.5"},
    "logit_scale": 10.0,
    "logit_bias": -1.0,
}


def key(**options: Any) -> str:
    found = key_of("resnet18", options)
    assert found is not None
    return found.key


def test_every_option_is_one_that_load_takes() -> None:
    assert {*OTHERS, "classes"} <= {*EXPORT_OPTIONS}


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("name", OTHERS)
def test_another_value_is_another_export(name: str) -> None:
    assert key(**{name: OTHERS[name]}) != key()
    assert key(**{name: OTHERS[name]}) == key(**{name: OTHERS[name]})


def test_a_file_of_an_input_or_of_embeddings_is_its_content(tmp_path: Path) -> None:
    path = tmp_path / "values.npy"
    keys = set()
    for values in (np.zeros((2, 3)), np.ones((2, 3))):
        np.save(path, values)
        keys |= {key(inputs={"x": str(path)}), key(classes=str(path)), key(inputs={"x": values}), key(classes=values)}
    assert len(keys) == 8


def test_a_long_text_is_no_file() -> None:
    assert key(inputs={"x": str([0] * 10_000)}) != key(inputs={"x": str([1] * 10_000)})
