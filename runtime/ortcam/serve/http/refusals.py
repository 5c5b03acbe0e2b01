"""Refusals: what a client is told in place of an answer, with its HTTP status and one sentence."""

import math
from typing import Final

from ortcam.errors import (
    BundleError,
    ClosedError,
    ImageError,
    MemoryLimitError,
    NotFiniteError,
    OptionError,
    OrtcamError,
    OutOfMemoryError,
    OutputError,
    ProviderError,
    TargetError,
)

__all__ = ["Refusal", "refusal_of"]

# What the caller can change.
_OF_THE_REQUEST: Final = (ImageError, NotFiniteError, OptionError, TargetError)


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of the server
    """A request that gets no result.

    Attributes:
        status: of HTTP.
        message: one sentence for the client: the value and what is accepted. No path of this machine.
        retry_after: seconds after which the same request may succeed, for 429 and 503.
    """

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, at least 1, where it helps to try again; and 408 closes the connection."""
        found = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        return found | ({"Connection": "close"} if self.status == 408 else {})


def refusal_of(error: OrtcamError) -> Refusal:
    """The refusal that tells a client of an error of the library.

    What the request is to blame for is 422, with the error's own sentence. What the machine or the bundle is to blame
    for does not show its sentence, which may name a path: 503 where it helps to try again, else 500.

    Example:
        >>> refusal_of(OptionError("alpha=2: accepted is a number from 0 to 1")).status
        422
    """
    if isinstance(error, OutOfMemoryError | MemoryLimitError):
        return Refusal(503, "there is not enough memory for this at the moment", retry_after=5)
    if isinstance(error, ClosedError):
        return Refusal(503, "the model has just been replaced or is being closed: try again", retry_after=1)
    if isinstance(error, _OF_THE_REQUEST):
        return Refusal(422, str(error))
    if isinstance(error, BundleError | OutputError | ProviderError):
        return Refusal(500, "the model cannot be run: the server's log says why")
    return Refusal(500, "the request failed: the server's log says why")
