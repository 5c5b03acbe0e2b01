"""A server of `ortcam serve` in a thread of the test's own process, on a free port of this machine."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from ortcam.serve import Settings, create_app
from ortcam.serve.service import Service

__all__ = ["Serving", "serving"]

PATIENCE = 120.0  # seconds; what is waited for takes a few on two slow cores


class Serving:
    """A server that is ready.

    Attributes:
        url: of its root, with a slash at its end.
        service: of its application; it belongs to the server's event loop.
    """

    def __init__(self, url: str, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self.service = service
        self._loop = loop

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the server's event loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)


@contextlib.contextmanager
def serving(*bundles: Any, port: int = 0, **settings: Any) -> Iterator[Serving]:
    """Serve bundles until the block ends. The arguments are those of `Settings.of`."""
    app = create_app(Settings.of(bundles, **settings))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        loops: list[asyncio.AbstractEventLoop] = []
        ready = threading.Event()

        async def main() -> None:
            loops.append(asyncio.get_running_loop())
            running = asyncio.create_task(server.serve([listener]))
            while not server.started and not running.done():
                await asyncio.sleep(0.01)
            if not running.done():
                await app.state.service.opened.wait()
            ready.set()
            await running

        thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
        thread.start()
        assert ready.wait(PATIENCE)
        assert app.state.service is not None
        assert app.state.service.ready, app.state.service.failure
        try:
            yield Serving(f"http://127.0.0.1:{listener.getsockname()[1]}/", app.state.service, loops[0])
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()
