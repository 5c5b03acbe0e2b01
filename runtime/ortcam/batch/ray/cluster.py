"""Ray, as a batch and an evaluation use it: a cluster, or this machine alone; and bundles that travel by themselves.

Ray that this module starts tells nobody that it is used, keeps its files in a folder of its own, and ends with the
block or with this process, even by a kill. Who imports this module needs Ray (the extra `ray`).
"""

import contextlib
import hashlib
import io
import logging
import os
import signal
import socket
import sys
import tarfile
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
import ray.data

from ortcam.batch.job import RayOptions
from ortcam.bundle import MANIFEST_NAME
from ortcam.errors import OptionError, OrtcamError
from ortcam.support.cache_folder import bundles_folder
from ortcam.support.files import move_folder
from ortcam.support.unfinished import workspace

__all__ = ["ADDRESS_VARIABLE", "Cluster", "ShippedBundle", "connected", "in_a_line", "ours"]

ADDRESS_VARIABLE: Final = "RAY_ADDRESS"
# For Ray that starts here, unless the user has set them: it reports to nobody, and its C++ part does not talk.
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_worker_niceness": "0",  # as the local engine's processes; 15 leaves nothing where others compute, too
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or it warns of what it will do one day
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
_LOGGERS: Final = ("ray", "ray.data")
_LOCAL: Final = "local"
_LONGEST_PARENT: Final = 24
_STARTS: Final = 3
_LONGEST: Final = 300  # characters of a message of Ray
_PATIENCE: Final = 10.0  # seconds, for a cluster to answer
# On machines with little memory Ray would take a third of it. What is under way is small.
_MOST_OBJECTS: Final = 2 << 30


@dataclass(frozen=True)
class Cluster:
    """The Ray that a batch uses.

    Attributes:
        alone: whether it was started for this block, on this machine, so that no other machine can join.
    """

    alone: bool

    @property
    def cpus(self) -> int:
        """Those that it has now; more may come, or they go."""
        return int(ray.cluster_resources().get("CPU", 0))

    @property
    def gpus(self) -> float:
        """As `cpus`."""
        return float(ray.cluster_resources().get("GPU", 0))

    def warn_if_too_small(self, cpus: int, gpus: float) -> None:
        """Warn if no machine has now what an actor takes: Ray waits for one that has, for ever and without a word.

        Args:
            cpus: of an actor.
            gpus: of an actor.
        """
        wanted = {"CPU": cpus, "GPU": gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in nodes):
            asked = f"{cpus} CPU(s)" + (f" and {gpus:g} GPU(s)" if gpus else "")
            warnings.warn(f"no machine of the Ray cluster has {asked} now; Ray waits for one", stacklevel=2)

    def ship(self, folder: Path, sha256: str) -> "ShippedBundle":
        """Put a bundle into Ray's object store, if there are, or may be, machines that do not see its folder.

        Args:
            folder: of the bundle.
            sha256: of its bundle.json.
        """
        if self.alone:
            return ShippedBundle(folder.absolute(), sha256, None)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    tar.add(path, str(path.relative_to(folder)), recursive=False)
        return ShippedBundle(folder.absolute(), sha256, ray.put(np.frombuffer(packed.getbuffer(), np.uint8)))


@contextlib.contextmanager
def connected(options: RayOptions) -> Iterator[Cluster]:
    """Use Ray within a block: that of this process, that at an address, or one that starts now and ends with the block.

    Args:
        options: the address. None: `RAY_ADDRESS`, or else Ray on this machine alone.

    Raises:
        OptionError: an address that is none, or where no cluster answers.
        OrtcamError: Ray does not start.
    """
    address = options.address or os.environ.get(ADDRESS_VARIABLE) or _LOCAL
    if "://" in address:
        raise OptionError(
            f"Ray's address {address}: accepted is auto or host:port, on a machine of the cluster; from elsewhere use "
            "`ray job submit`"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment())
        stack.enter_context(_quiet())
        began = not ray.is_initialized()
        if began:
            if address == _LOCAL:
                _start(stack.enter_context(_folder()))
            else:
                _connect(address)
            _never_start_by_itself()
            stack.callback(ray.shutdown)
        yield Cluster(alone=began and address == _LOCAL)


def ours(error: BaseException) -> OrtcamError | None:
    """The error of ortcam that a worker has raised, out of the errors that Ray wraps around it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        found = left.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, OrtcamError):
            # Ray raises an object of both classes, whose text has the worker's traceback; `cause` is the plain one.
            cause = getattr(found, "cause", None)
            return cause if isinstance(cause, OrtcamError) else found
        left += [getattr(found, "cause", None), found.__cause__, found.__context__]
    return None


def in_a_line(error: BaseException) -> str:
    """What an error of Ray says, which may be pages, in a line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


@dataclass(frozen=True)
class ShippedBundle:
    """A bundle that lies in Ray's object store, for machines that do not see its folder.

    Attributes:
        path: of the folder, where it came from.
        sha256: of its bundle.json, which identifies all of it.
        content: reference to the folder as an uncompressed tar file; None: all machines see the folder.
    """

    path: Path
    sha256: str
    content: Any

    def folder(self) -> Path:
        """The bundle on this machine: the folder it came from, or a copy, which is made once per machine.

        Raises:
            OrtcamError: there is no place for a copy.
        """
        if self.content is None or _is_bundle(self.path, self.sha256):
            return self.path
        root = (bundles_folder() or Path(tempfile.gettempdir()) / "ortcam-bundles").absolute() / "shipped"
        place = root / self.sha256[:16] / self.path.name
        if not _is_bundle(place, self.sha256):
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                _unpack(ray.get(self.content), place)
            except OSError as error:
                raise OrtcamError(f"{place}: the bundle cannot be put there: {error.strerror or error}") from None
        return place


def _never_start_by_itself() -> None:
    """Calls of Ray start it where it does not run: after the end, a thread of Ray Data that lives on would do so."""
    hook: Any = sys.modules.get("ray._private.auto_init_hook")
    if hasattr(hook, "enable_auto_connect"):
        hook.enable_auto_connect = False


def _start(folder: Path) -> None:
    """Start Ray here. It gives up after half a minute, which a busy machine may need: so there is another try."""
    for attempt in range(1, _STARTS + 1):
        try:
            _init(
                address=_LOCAL,
                include_dashboard=False,
                object_store_memory=min(_MOST_OBJECTS, _memory() // 4),
                _temp_dir=str(folder),
            )
        except Exception as error:  # noqa: BLE001 - of every kind: ports, folders, memory, limits
            ray.shutdown()
            if attempt == _STARTS or "timed out" not in str(error):
                raise OrtcamError(f"Ray does not start on this machine: {in_a_line(error)}") from None
        else:
            return


def _connect(address: str) -> None:
    if address != "auto":
        _answers(address)
    try:
        _init(address=address)
    except Exception as error:  # noqa: BLE001 - of every kind: no cluster, another version, a token that is missing
        raise OptionError(_no_cluster(address, error)) from None


def _init(**arguments: Any) -> None:
    """Start or join; Ray sets a handler of its own for SIGTERM, which the one that was there replaces again."""
    # Which level its log has, Ray's C++ part says on stderr, whatever the level.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if is_main else None
    try:
        with _without_stderr():
            ray.init(log_to_driver=False, configure_logging=False, **arguments)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the files of Ray, whose name is short: the paths of sockets have 107 bytes at most."""
    parent = Path(tempfile.gettempdir())
    if len(os.fsencode(parent)) > _LONGEST_PARENT and Path("/tmp").is_dir():  # noqa: S108 - the one that is short
        parent = Path("/tmp")  # noqa: S108
    with workspace(parent) as folder:
        yield folder


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """What libraries of C++ write to stderr goes nowhere."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _answers(address: str) -> None:
    """Ray itself would wait for a cluster that is not there for ten minutes and more.

    Raises:
        OptionError: nothing listens at host:port.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        raise OptionError(_no_cluster(address, error)) from None


def _no_cluster(address: str, error: Exception) -> str:
    return (
        f"Ray's address {address}: no cluster can be used there ({in_a_line(error)}); accepted is auto or host:port, "
        "on a machine of the cluster"
    )


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    added = [name for name in _ENVIRONMENT if name not in os.environ]
    os.environ.update({name: _ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray's loggers say what is an error, and nothing else: progress and failures are told by ortcam."""
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ray\b.*")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _is_bundle(folder: Path, sha256: str) -> bool:
    try:
        content = (folder / MANIFEST_NAME).read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content).hexdigest() == sha256


def _unpack(packed: Any, place: Path) -> None:
    """Write the folder beside its place, and move it there when it is complete."""
    with workspace(place.parent) as own:
        made = own / place.name
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r") as tar:
            tar.extractall(made, filter="data")
        move_folder(made, place, own)
