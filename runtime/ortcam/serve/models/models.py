"""`Models`: the bundles of a server by name; who uses one holds a lease, so that none is closed under a request."""

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import AsyncIterator
from typing import Final, Protocol

from ortcam.bundle import MANIFEST_NAME
from ortcam.errors import OrtcamError
from ortcam.serve.http.logs import log
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.models.served import ServedModel, memory_limit, open_model
from ortcam.serve.settings import ServedBundle, Settings

__all__ = ["ModelMetrics", "Models", "Reloaded"]

_SOON: Final = 2.0  # seconds after which a client may ask again for a model that is being opened

# Of bundle.json, which says whether it is another one: device, inode, time and size.
_Stamp = tuple[int, int, int, int]
_NOT_THERE: Final = (0, 0, 0, 0)


class ModelMetrics(Protocol):
    """What is told of models; `ortcam.serve.monitoring.Metrics` is one."""

    def ready(self, model: str, ready: bool) -> None:
        """A bundle is open and warmed up, or no longer."""

    def reloaded(self, model: str, done: bool) -> None:
        """A changed bundle took the place of the old one, or it is broken and the old one stays."""


@dataclasses.dataclass(frozen=True)
class Reloaded:
    """What became of one bundle when all were looked at again.

    Attributes:
        name: of the model.
        changed: whether a new bundle is served now.
        error: why the new bundle is not served, in one sentence, which may name a path; None where all is well.
    """

    name: str
    changed: bool
    error: str | None = None


@dataclasses.dataclass
class _Place:
    """A name and what is served under it."""

    served: ServedBundle
    model: ServedModel | None = None
    stamp: _Stamp | None = None  # of what is served
    tried: _Stamp | None = None  # of what was found broken


class Models:
    """The bundles of a server by name. Its methods belong to one event loop; what takes long runs in threads."""

    def __init__(self, settings: Settings, metrics: ModelMetrics | None = None) -> None:
        """Open nothing yet.

        Args:
            settings: of the server.
            metrics: is told what is ready and what was reloaded.
        """
        self._settings = settings
        self._memory = memory_limit(settings)
        self._metrics = metrics
        self._places = {served.name: _Place(served) for served in settings.bundles}
        self._leases: dict[ServedModel, int] = {}
        self._leaving: set[ServedModel] = set()
        self._reloading = asyncio.Lock()
        self._closed = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models, in the order of the settings, ready or not."""
        return tuple(self._places)

    @property
    def ready(self) -> bool:
        """Whether every model is open and warmed up."""
        return not self._closed and all(place.model is not None for place in self._places.values())

    async def start(self) -> None:
        """Open every bundle and warm it up, one after the other.

        Raises:
            OrtcamError: one of them cannot be served.
        """
        for place in self._places.values():
            stamp = _stamp(place.served)
            model = await asyncio.to_thread(open_model, place.served, self._settings, self._memory)
            if self._is_closed():
                model.close()
                return
            self._put(place, model, stamp)

    def get(self, name: str) -> ServedModel:
        """The model of a name, as it is now.

        Raises:
            Refusal: 404, there is none of this name; 503, it is not ready yet, or no longer.
        """
        place = self._places.get(name)
        if place is None:
            raise Refusal(404, f"no model {_shown(name)}; there are {', '.join(self._places)}")
        if place.model is None or self._closed:
            raise Refusal(503, f"model {name} is not ready", retry_after=_SOON)
        return place.model

    @contextlib.asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[ServedModel]:
        """The model of a name, which is not closed within the block, also if another one takes its place.

        Raises:
            Refusal: as `get`.
        """
        model = self.get(name)
        self._leases[model] = self._leases.get(model, 0) + 1
        try:
            yield model
        finally:
            self._leases[model] -= 1
            if not self._leases[model]:
                del self._leases[model]
                if model in self._leaving:
                    self._leaving.discard(model)
                    model.close()

    async def reload(self, *, all_again: bool = True) -> list[Reloaded]:
        """Open the bundles that have changed on the disk, warm them up, and put them in the place of the old ones.

        Requests that run keep the model that they began with. A bundle that is broken changes nothing.

        Args:
            all_again: look also at bundles that were broken the last time and have not changed since.

        Returns:
            What changed, and what is broken.
        """
        async with self._reloading:
            found = [await self._look_at(place, all_again=all_again) for place in self._places.values()]
        return [reloaded for reloaded in found if reloaded is not None]

    async def watch(self, seconds: float = 2.0) -> None:
        """Reload what changes, until the task is cancelled. It looks at each bundle.json every few seconds.

        A bundle that is broken is tried again with growing pauses: its files may still be on their way.
        """
        pause, waited = seconds, 0.0
        while True:
            await asyncio.sleep(seconds)
            waited += seconds
            again = waited >= pause
            broken = [found for found in await self.reload(all_again=again) if found.error]
            if broken or again:
                waited = 0.0
                pause = min(2 * pause, 60.0) if broken and again else seconds

    async def _look_at(self, place: _Place, *, all_again: bool) -> Reloaded | None:
        stamp = _stamp(place.served)
        if place.model is None or self._closed or stamp == place.stamp:
            return None
        if stamp == place.tried and not all_again:
            return None
        name = place.served.name
        try:
            model = await asyncio.to_thread(open_model, place.served, self._settings, self._memory)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a new bundle, the old one stays
            place.tried = stamp
            log(
                "the old bundle stays, for the new one is broken",
                level=logging.ERROR,
                model=name,
                reason=str(error),
                error=None if isinstance(error, OrtcamError) else error,
            )
            if self._metrics is not None:
                self._metrics.reloaded(name, done=False)
            return Reloaded(name, changed=False, error=str(error))
        if self._is_closed():
            model.close()
            return None
        changed = model.bundle.sha256 != place.model.bundle.sha256
        if not changed:  # written again, with the same content
            model.close()
            place.stamp, place.tried = stamp, None
            return None
        old = place.model
        self._put(place, model, stamp)
        if old in self._leases:
            self._leaving.add(old)
        else:
            await asyncio.to_thread(old.close)
        log("the new bundle is served", model=name)
        if self._metrics is not None:
            self._metrics.reloaded(name, done=True)
        return Reloaded(name, changed=True)

    def _put(self, place: _Place, model: ServedModel, stamp: _Stamp) -> None:
        place.model, place.stamp, place.tried = model, stamp, None
        if self._metrics is not None:
            self._metrics.ready(place.served.name, True)

    def _is_closed(self) -> bool:  # a method, since it may change while something is awaited
        return self._closed

    async def close(self) -> None:
        """Close every model; those that a request still uses once it ends."""
        self._closed = True
        for place in self._places.values():
            model, place.model = place.model, None
            if self._metrics is not None:
                self._metrics.ready(place.served.name, False)
            if model is None:
                continue
            if model in self._leases:
                self._leaving.add(model)
            else:
                await asyncio.to_thread(model.close)


def _stamp(served: ServedBundle) -> _Stamp:
    try:
        found = os.stat(served.path / MANIFEST_NAME)  # noqa: PTH116 - follows links, as `Path.stat` does
    except OSError:
        return _NOT_THERE
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _shown(name: str) -> str:
    """A name that a client sent, for a message."""
    return repr(name if len(name) <= 60 else name[:57] + "...")
