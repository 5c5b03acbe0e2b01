"""`run`: the application under uvicorn, from the first connection to the last answer, and the signals between."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import uvicorn

from ortcam.errors import OptionError, OutputError
from ortcam.serve.app import create_app
from ortcam.serve.http.connections import BACKLOG, BoundedConnection
from ortcam.serve.http.logs import LogWriter, log, logged_warnings
from ortcam.serve.service import Service
from ortcam.serve.settings import Settings

__all__ = ["run"]

_LOGGERS: Final = ("ortcam", "uvicorn.error", "asyncio")
_KEEP_ALIVE: Final = 65  # seconds; longer than the minute of usual proxies, so that they close first
_CLOSING: Final = 5  # seconds for connections, once everything is answered


class _Server(uvicorn.Server):
    """uvicorn without handlers of its own: `run` says what signals do."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(settings: Settings, *, listening: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT, and then drain; a second one ends at once. SIGHUP loads changed bundles again.

    Args:
        settings: of the server.
        listening: told the address once connections are accepted.

    Raises:
        OrtcamError: a bundle cannot be opened, the address cannot be listened on, or the log not be written.
    """
    writer = LogWriter(settings.log_file)
    try:
        writer.start()
    except OSError as error:
        raise OutputError(f"{settings.log_file}: the log cannot be written there: {error.strerror}") from None
    try:
        with writer.taking(*_LOGGERS), logged_warnings(), _listener(settings) as listener:
            asyncio.run(_serve(settings, writer, listener, listening))
    finally:
        writer.stop()


def _listener(settings: Settings) -> socket.socket:
    """A socket that listens, so that an address that is taken is one sentence.

    Raises:
        OptionError: it cannot be listened on.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = settings.host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(address[:2], family=family, backlog=2048, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such name"
        raise OptionError(f"host {settings.host}, port {settings.port}: cannot be listened on: {reason}") from None
    # Accepted sockets inherit it. Without it, Nagle's algorithm holds every second answer back for 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _address(settings: Settings, listener: socket.socket) -> str:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


async def _serve(
    settings: Settings, writer: LogWriter, listener: socket.socket, listening: Callable[[str], None]
) -> None:
    """One server, from start to end.

    Raises:
        OrtcamError: a bundle cannot be opened.
    """
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_CLOSING,
        lifespan="on",
        loop="asyncio",
        ws="none",
        http=BoundedConnection,
        backlog=BACKLOG,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if serving.done():
        await serving
        return
    service: Service = app.state.service
    end, hurry = asyncio.Event(), asyncio.Event()
    with _signals(end, hurry, service, writer):
        address = _address(settings, listener)
        log("listening", address=address)
        listening(address)
        await _first(end.wait(), service.opened.wait())
        if service.failure is None:
            gc.collect()
            gc.freeze()  # full collections leave out what stays: the modules and the models
            await end.wait()
        await _first(service.drain(), hurry.wait())
        if hurry.is_set():
            log("ending at once", level=logging.WARNING)
            await service.hurry()
        server.should_exit = True
        await serving
    if service.failure is not None:
        raise service.failure
    log("ended")


async def _first(*waiting: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of several, and for the others no longer."""
    tasks = [asyncio.ensure_future(item) for item in waiting]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def _reload(service: Service) -> None:
    """Load bundles that have changed; one that is broken leaves the old one in its place. The models log both."""
    found = await service.models.reload()
    if not found:
        log("no bundle has changed")


@contextlib.contextmanager
def _signals(end: asyncio.Event, hurry: asyncio.Event, service: Service, writer: LogWriter) -> Iterator[None]:
    """SIGTERM and SIGINT end the server, a second one at once. SIGHUP loads bundles and opens the log anew."""
    loop = asyncio.get_running_loop()
    reloading: set[asyncio.Task[None]] = set()

    def ask_to_end() -> None:
        (hurry if end.is_set() else end).set()

    def reload() -> None:
        try:
            writer.reopen()
        except OSError as error:
            log("the log cannot be opened anew", level=logging.ERROR, reason=error.strerror)
        task = loop.create_task(_reload(service))
        reloading.add(task)
        task.add_done_callback(reloading.discard)

    before: dict[int, Any] = {}
    wanted = {"SIGTERM": ask_to_end, "SIGINT": ask_to_end, "SIGHUP": reload}
    for name, handle in wanted.items():
        number = getattr(signal, name, None)
        if number is None:
            continue
        if sys.platform == "win32":
            before[number] = signal.signal(number, lambda *_, handle=handle: loop.call_soon_threadsafe(handle))
        else:
            before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            if sys.platform != "win32":
                loop.remove_signal_handler(number)
            signal.signal(number, handler)
