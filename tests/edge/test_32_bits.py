"""Numbers of numpy's index type, which has 32 bits on 32-bit processors, reach no graph that takes int64."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ortcam
from ortcam.bundle import read_bundle
from ortcam.methods import METHODS, fits
from ortcam.parity import parity_failure, verify
from tests.conftest import TINY_BUNDLE

# Where numpy chooses an integer type by itself: of what it is given, or of places in an array.
FROM_LISTS = ("arange", "array", "asarray", "full")
PLACES = ("argmax", "argmin", "argpartition", "argsort", "count_nonzero", "flatnonzero", "searchsorted")


def narrow(function: Callable[..., Any], kept: Callable[..., bool]) -> Callable[..., Any]:
    """A function of numpy that gives int32 for int64, unless int64 was asked for."""

    @functools.wraps(function)
    def narrowed(*arguments: Any, **named: Any) -> Any:
        found = function(*arguments, **named)
        wide = isinstance(found, np.ndarray) and found.dtype == np.int64
        return found.astype(np.int32) if wide and not kept(*arguments, **named) else found

    return narrowed


def typed(*arguments: Any, **named: Any) -> bool:
    """Whether a type was asked for, or an array was given that has one."""
    return "dtype" in named or any(isinstance(item, np.ndarray | type | np.dtype) for item in arguments)


@pytest.fixture
def narrow_numpy(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes numpy choose as it does on 32-bit processors, until the test ends."""

    def start() -> None:
        for name in FROM_LISTS:
            monkeypatch.setattr(np, name, narrow(getattr(np, name), typed))
        for name in PLACES:
            monkeypatch.setattr(np, name, narrow(getattr(np, name), lambda *_, **__: False))

    return start


def explain(bundle: Path) -> dict[str, Any]:
    """The maps of every method that a bundle has, of a random image; and of a score that is no class."""
    explainer = ortcam.load(bundle)
    manifest = read_bundle(bundle).manifest
    shape = (1, manifest.preprocessing.channels, manifest.preprocessing.height, manifest.preprocessing.width)
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    made = {}
    for method in (method for method in METHODS if fits(method, manifest)):
        limits = {"budget": 5} if method.masks_image else {}
        made[method.name] = explainer.explain(preprocessed=image, method=method.name, **limits).maps
    made["score"] = explainer.explain(preprocessed=image, score="index:0 - index:1").maps
    return made


@pytest.mark.long
def test_maps_are_the_same(narrow_numpy: Callable[[], None]) -> None:
    expected = explain(TINY_BUNDLE)
    assert len(expected) > 5
    narrow_numpy()
    assert np.arange(2).dtype == np.int32
    found = explain(TINY_BUNDLE)
    for name, maps in expected.items():
        np.testing.assert_array_equal(found[name], maps, err_msg=name)


def test_a_bundle_is_verified(narrow_numpy: Callable[[], None]) -> None:
    narrow_numpy()
    bundle = read_bundle(TINY_BUNDLE)
    assert parity_failure(verify(bundle), bundle.manifest.graphs) is None
