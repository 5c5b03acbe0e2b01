"""Models: nobody is served before a model is warm, a reload drops no request, and a broken bundle changes nothing."""

import asyncio
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.common.loops import run_async

import ortcam
from ortcam.bundle import MANIFEST_NAME
from ortcam.errors import BundleError, OptionError
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.models.models import Models
from ortcam.serve.settings import ServedBundle, Settings

PATIENCE = 30


class Told:
    """Metrics that note what they are told."""

    def __init__(self) -> None:
        self.states: dict[str, bool] = {}
        self.reloads: list[tuple[str, bool]] = []

    def ready(self, model: str, ready: bool) -> None:
        self.states[model] = ready

    def reloaded(self, model: str, done: bool) -> None:
        self.reloads.append((model, done))


def settings(*bundles: Path, **others: Any) -> Settings:
    served = [ServedBundle(bundle.name.removesuffix(".ortcam"), bundle) for bundle in bundles]
    return Settings.of(served, providers=("cpu",), **others)


def rename_classes(bundle: Path, to: str) -> None:
    """Put another version in place of a bundle, as a deployment does: its first label has another name."""
    new = bundle.with_name("new.ortcam")
    shutil.copytree(bundle, new)
    manifest = json.loads((new / MANIFEST_NAME).read_text("utf-8"))
    manifest["labels"][0] = to
    (new / MANIFEST_NAME).write_text(json.dumps(manifest))
    bundle.rename(bundle.with_name(f"old-{to}.ortcam"))
    new.rename(bundle)


def test_a_model_is_served_once_it_is_warm(bundle_copy: Path, tiny_bundle: Path, picture: np.ndarray) -> None:
    async def run() -> None:
        told = Told()
        models = Models(settings(bundle_copy, tiny_bundle), told)
        assert (models.names, models.ready) == (("copy", "tiny"), False)
        with pytest.raises(Refusal) as early:
            models.get("copy")
        assert (early.value.status, early.value.retry_after is not None) == (503, True)
        await models.start()
        assert models.ready
        assert told.states == {"copy": True, "tiny": True}
        model = models.get("tiny")
        assert (model.name, model.ready, model.manifest.labels[0]) == ("tiny", True, "cat")
        alone = ortcam.load(tiny_bundle, providers=["cpu"], threads=1).explain(picture, method="recipro-cam")
        np.testing.assert_array_equal(model.explainer.explain(picture, method="recipro-cam").maps, alone.maps)
        with pytest.raises(Refusal) as unknown:
            models.get("tinny")
        assert unknown.value.status == 404
        assert "copy, tiny" in unknown.value.message
        await models.close()
        assert told.states == {"copy": False, "tiny": False}
        with pytest.raises(Refusal) as late:
            models.get("tiny")
        assert late.value.status == 503

    run_async(run())


def test_warming_up_opens_what_requests_use(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, str] = {}
    real = ortcam.engine.session.OnnxEngine.open

    def noted(engine: Any, graph: str) -> object:
        opened.setdefault(graph, threading.current_thread().name)
        return real(engine, graph)

    monkeypatch.setattr(ortcam.engine.session.OnnxEngine, "open", noted)

    async def run() -> None:
        models = Models(settings(tiny_bundle))
        await models.start()
        manifest = models.get("tiny").manifest
        scorers = [graph for graph in opened if graph.startswith("scorer")]
        assert manifest.graphs.features in opened
        assert manifest.graphs.head in opened
        assert scorers
        assert all(opened[graph] == "ortcam-warm-up" for graph in scorers)  # in the thread that gives way
        assert opened[manifest.graphs.features] != "ortcam-warm-up"
        await models.close()

    run_async(run())


def test_a_reload_keeps_the_old_model_for_those_who_use_it(bundle_copy: Path, picture: np.ndarray) -> None:
    async def run() -> None:
        told = Told()
        models = Models(settings(bundle_copy), told)
        await models.start()
        assert await models.reload() == []
        async with models.lease("copy") as old:
            rename_classes(bundle_copy, "lynx")
            (found,) = await models.reload()
            assert (found.name, found.changed, found.error) == ("copy", True, None)
            async with models.lease("copy") as new:
                assert new is not old
                assert (old.manifest.labels[0], new.manifest.labels[0]) == ("cat", "lynx")
            assert old.explainer.explain(picture, method="recipro-cam").labels
        with pytest.raises(ortcam.ClosedError):
            old.explainer.predict(picture)  # nobody uses it any more
        assert new.explainer.predict(picture).shape == (6,)
        rename_classes(bundle_copy, "puma")
        await models.reload()
        with pytest.raises(ortcam.ClosedError):
            new.explainer.predict(picture)
        assert told.reloads == [("copy", True), ("copy", True)]
        await models.close()

    run_async(run())


def test_a_broken_bundle_leaves_the_old_one(bundle_copy: Path, picture: np.ndarray) -> None:
    async def run() -> None:
        told = Told()
        models = Models(settings(bundle_copy), told)
        await models.start()
        model = models.get("copy")
        whole = (bundle_copy / MANIFEST_NAME).read_bytes()
        (bundle_copy / MANIFEST_NAME).write_bytes(whole[:100])
        for _ in range(2):
            (found,) = await models.reload()
            assert not found.changed
            assert found.error
        assert await models.reload(all_again=False) == []  # known to be broken
        assert models.get("copy") is model
        assert model.explainer.predict(picture).shape == (6,)
        shutil.rmtree(bundle_copy)
        (found,) = await models.reload()
        assert "no such folder" in str(found.error)
        assert await models.reload(all_again=False) == []
        assert told.reloads == 3 * [("copy", False)]
        assert model.explainer.explain(picture, budget=4).maps.any()
        await models.close()

    run_async(run())


def test_a_bundle_that_was_written_again_stays(bundle_copy: Path) -> None:
    async def run() -> None:
        models = Models(settings(bundle_copy))
        await models.start()
        model = models.get("copy")
        state = (bundle_copy / MANIFEST_NAME).stat()
        os.utime(bundle_copy / MANIFEST_NAME, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))
        assert await models.reload() == []
        assert models.get("copy") is model
        await models.close()

    run_async(run())


def test_watching_finds_a_new_bundle(bundle_copy: Path) -> None:
    async def run() -> None:
        models = Models(settings(bundle_copy))
        await models.start()
        watching = asyncio.create_task(models.watch(0.01))
        whole = (bundle_copy / MANIFEST_NAME).read_bytes()
        (bundle_copy / MANIFEST_NAME).write_bytes(b"{")  # a copy that is half-way
        await asyncio.sleep(0.05)
        (bundle_copy / MANIFEST_NAME).write_bytes(whole)
        rename_classes(bundle_copy, "lynx")
        while models.get("copy").manifest.labels[0] != "lynx":
            await asyncio.sleep(0.01)
        watching.cancel()
        await models.close()

    run_async(asyncio.wait_for(run(), PATIENCE))


def test_a_bundle_that_does_not_work_keeps_a_server_from_starting(bundle_copy: Path) -> None:
    (bundle_copy / MANIFEST_NAME).write_text("{}")
    with pytest.raises(BundleError):
        run_async(Models(settings(bundle_copy)).start())


def test_a_precision_that_the_bundle_lacks_is_the_callers_error(tiny_bundle: Path) -> None:
    async def run() -> None:
        models = Models(settings(tiny_bundle))
        await models.start()
        model = models.get("tiny")
        assert model.explainer_of(None) is model.explainer_of("float32") is model.explainer
        for name in ("float16", "float17"):
            with pytest.raises(OptionError) as raised:
                model.explainer_of(name)
            assert str(tiny_bundle) not in str(raised.value)
        await models.close()

    run_async(run())
