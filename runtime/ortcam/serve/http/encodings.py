"""Bodies that a client has compressed."""

import zlib
from typing import Final

from ortcam.serve.http.refusals import Refusal

__all__ = ["unpacked"]

_ZLIB_OR_GZIP: Final = zlib.MAX_WBITS | 32  # zlib tells them apart by their first bytes


def unpacked(body: bytes, encoding: str | None, limit: int) -> bytes:
    """The content of a body that was compressed as its header `Content-Encoding` says.

    Memory: what it unpacks to, and at most one byte more than the limit.

    Args:
        body: as it came.
        encoding: the header: gzip, deflate (zlib's format, RFC 9110) or identity; None if there is none.
        limit: bytes that it may unpack to.

    Raises:
        Refusal: 400, it is not compressed like that, or not whole; 413, it unpacks to more; 415, another encoding.

    Example:
        >>> unpacked(zlib.compress(b"image"), "deflate", 1000)
        b'image'
    """
    name = "identity" if encoding is None else encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in {"gzip", "deflate"}:
        raise Refusal(415, f"Content-Encoding is {name[:100]!r}; accepted: gzip, deflate, identity")
    unpacker = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        content = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise Refusal(400, f"the body is not {name}, which its Content-Encoding says") from None
    if len(content) > limit:
        raise Refusal(413, f"the body unpacks to more than {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise Refusal(400, f"the body is not one whole stream of {name}")
    return content
