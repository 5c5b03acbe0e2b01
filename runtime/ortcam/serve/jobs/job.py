"""A job: one request whose answer is not waited for. Its state, its newest maps, and in the end its answer."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from starlette.responses import Response

from ortcam.serve.scheduling.calls import Call

__all__ = ["STATES", "Job", "Preview", "Record", "State", "error_response"]

State = Literal["waiting", "running", "done", "failed", "cancelled"]
STATES: Final[tuple[State, ...]] = ("waiting", "running", "done", "failed", "cancelled")

# Makes the record of a map on the way, as JSON types.
Record = Callable[[], Mapping[str, object]]

_CANCELLED: Final = "the job was cancelled"


class Preview:
    """The newest map of a job. It becomes text only if somebody wants to see it, and then once.

    Attributes:
        number: of all maps of the job, from 1.
    """

    def __init__(self, number: int, place: int, record: Record) -> None:
        self.number = number
        self._place = place
        self._record = record
        self._text: asyncio.Future[str] | None = None

    async def text(self) -> str:
        """The record with the place of its image, as JSON; made in a thread."""
        if self._text is None:
            self._text = asyncio.ensure_future(asyncio.to_thread(self._make))
        return await asyncio.shield(self._text)

    def _make(self) -> str:
        return json.dumps({"instance": self._place, **self._record()}, separators=(",", ":"))


class Job:
    """One request in the background. All methods but `show` belong to the event loop.

    Attributes:
        id: nobody can guess it, so whoever knows it may see and cancel the job.
        model: name of the bundle.
        call: of the request; its `stop` stops the job.
        response: what the protocol would have answered, or the refusal; None until then.
        fetched: whether somebody has seen the answer.
    """

    def __init__(self, id_: str, model: str, call: Call) -> None:
        self.id = id_
        self.model = model
        self.call = call
        self.response: Response | None = None
        self.fetched = False
        self._began = time.monotonic()
        self._seconds = 0.0
        self._cancelled = False
        self._shown = 0
        self._preview: Preview | None = None  # one alone: with it goes the photograph, which may be large
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def state(self) -> State:
        """Where it is: "waiting", "running", "done", "failed" or "cancelled"."""
        if self._cancelled:
            return "cancelled"
        if self.response is not None:
            return "done" if self.response.status_code < 400 else "failed"
        return "running" if "queue" in self.call.stages else "waiting"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._cancelled or self.response is not None

    @property
    def size(self) -> int:
        """Bytes of the answer."""
        return 0 if self.response is None else len(self.response.body)

    @property
    def seconds(self) -> float:
        """How long it has taken, or took."""
        return self._seconds if self.ended else time.monotonic() - self._began

    def show(self, place: int, record: Record) -> None:
        """Keep a map on the way; from any thread. It takes the place of the one before.

        Args:
            place: of the image in the request, from 0.
            record: makes its record, if somebody wants to see it.
        """
        try:
            self._loop.call_soon_threadsafe(self._keep, place, record)
        except RuntimeError:  # the server has ended meanwhile
            return

    def _keep(self, place: int, record: Record) -> None:
        if not self.ended:
            self._shown += 1
            self._preview = Preview(self._shown, place, record)
            self._tell()

    def end(self, response: Response) -> None:
        """It has its answer, unless it was cancelled before."""
        if not self.ended:
            self._seconds = self.seconds
            self.response = response
        self._preview = None
        self._tell()

    def cancel(self) -> None:
        """Stop it at the next run of a graph. A job that has ended stays what it is."""
        if not self.ended:
            self._seconds = self.seconds
            self._cancelled = True
            self.call.stop("cancelled")
            self._preview = None
            self._tell()

    def newer(self, than: int) -> Preview | None:
        """The newest map, if it has a number above `than`."""
        return self._preview if self._preview is not None and self._preview.number > than else None

    def next_change(self) -> asyncio.Event:
        """An event for the next map or the end. Take it before looking at the job, then wait for it."""
        return self._changed

    async def change(self, seconds: float) -> None:
        """Wait for the first map or the end, for so many seconds at most."""
        if not (self.ended or self._preview):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    async def over(self, seconds: float | None = None) -> bool:
        """Wait until it has ended, for so many seconds at most; whether it has."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    change = self.next_change()
                    if self.ended:
                        return True
                    await change.wait()
        except TimeoutError:
            return False

    def answer(self) -> Response:
        """The very answer that the protocol would have sent, or the refusal; for a job that has ended."""
        self.fetched = True
        if self.response is None:
            return error_response(410, _CANCELLED)
        headers = {name: value for name, value in self.response.headers.items() if name != "content-length"}
        return Response(self.response.body, self.response.status_code, headers)

    def record(self, address: str) -> bytes:
        """The state as JSON, with the answer in `result` where that is JSON, too.

        Args:
            address: of the job.
        """
        record: dict[str, Any] = {
            "id": self.id,
            "state": self.state,
            "model": self.model,
            "seconds": round(self.seconds, 3),
            "passes": self.call.passes,
            "maps": self._shown,
        }
        response = self.response
        if self._cancelled or response is None:
            return json.dumps(record).encode()
        record["status"] = response.status_code
        record["result_url"] = f"{address}/result"
        if response.status_code >= 400:
            self.fetched = True
            return json.dumps(record | json.loads(bytes(response.body))).encode()
        if response.headers.get("content-type", "").partition(";")[0] != "application/json":
            return json.dumps(record).encode()  # who reads this has yet to fetch the answer
        self.fetched = True
        return json.dumps(record).encode()[:-1] + b', "result": ' + bytes(response.body) + b"}"

    def _tell(self) -> None:
        change, self._changed = self._changed, asyncio.Event()
        change.set()


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as every path of the server answers it: `{"error": "one sentence"}`."""
    body = json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(body, status, dict(headers or {}), "application/json")
