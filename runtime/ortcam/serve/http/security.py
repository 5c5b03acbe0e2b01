"""Who may ask, and what every answer says: bearer token, request ids, security headers, refusals while draining."""

import hmac
import json
import secrets
from collections.abc import Collection, Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ortcam.serve.http.refusals import Refusal

__all__ = ["OPEN_PATHS", "Headers", "Origins", "Token", "answer_refusal", "error_body", "path_of"]

# Paths that need no token: probes of an orchestrator have none.
OPEN_PATHS: Final = frozenset({"/v2/health/live", "/v2/health/ready"})

_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_LONGEST_ID: Final = 128
_READING: Final = ("GET", "HEAD", "OPTIONS")


class Headers:
    """Gives every request an id, and every answer that id and the security headers that it does not set itself."""

    def __init__(self, app: ASGIApp, *, cors: bool = False) -> None:
        self._app = app
        self._headers = [item for item in _HEADERS if not (cors and item[0] == b"cross-origin-resource-policy")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name.lower() for name, _ in headers}
                headers += [item for item in self._headers if item[0] not in names]
                headers.append((b"x-request-id", request_id.encode("ascii")))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_more)


class Origins:
    """Refuses what pages of other sites send: a browser would send it from any page that its user visits.

    Browsers say so in `Sec-Fetch-Site`, which no page can set. Programs send no such header.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str] = ()) -> None:
        """Guard an application.

        Args:
            app: to guard.
            origins: whose pages may ask, "*" for all.
        """
        self._app = app
        self._origins = {origin.encode("ascii", "replace") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in _READING or not self._is_foreign(scope):
            await self._app(scope, receive, send)
            return
        await answer_refusal(Refusal(403, "pages of other sites may not ask this server; --cors ORIGIN lets one"), send)

    def _is_foreign(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        if headers.get(b"sec-fetch-site") != b"cross-site":
            return False
        return b"*" not in self._origins and headers.get(b"origin") not in self._origins


class Token:
    """Refuses requests without the bearer token, health checks aside."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        open_paths: frozenset[str] = OPEN_PATHS,
        closed_paths: frozenset[str] = frozenset(),
    ) -> None:
        """Guard an application.

        Args:
            app: to guard.
            token: that requests must bear.
            open_paths: that need none; one that ends with a slash is a folder.
            closed_paths: that need it all the same.
        """
        self._app = app
        self._token = token.encode("ascii")
        self._open = open_paths
        self._closed = closed_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or self._is_open(_own_path(scope)) or self._is_borne(scope):
            await self._app(scope, receive, send)
            return
        refusal = Refusal(401, "this server needs a token: send the header Authorization: Bearer TOKEN")
        await answer_refusal(refusal, send, {"WWW-Authenticate": "Bearer"})

    def _is_open(self, path: str) -> bool:
        return _lies_in(path, self._open) and not _lies_in(path, self._closed)

    def _is_borne(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        kind, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def _own_path(scope: Scope) -> str:
    """The path below the place at which the application is mounted, as the routes see it."""
    path, place = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(place) if path.startswith(f"{place}/") else path


def _lies_in(path: str, places: frozenset[str]) -> bool:
    return path in places or any(place.endswith("/") and path.startswith(place) for place in places)


async def answer_refusal(refusal: Refusal, send: Send, headers: Mapping[str, str] | None = None) -> None:
    """Send a refusal from below the routes."""
    body = error_body(refusal.message)
    named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refusal.headers, **(headers or {})}
    encoded: list[tuple[bytes, bytes]] = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    start: dict[str, Any] = {"type": "http.response.start", "status": refusal.status, "headers": encoded}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def error_body(message: str) -> bytes:
    """The body of every error: `{"error": "one sentence"}`."""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "backslashreplace")


def path_of(scope: Scope) -> str:
    """The path of a request below the place at which the application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _request_id(scope: Scope) -> str:
    """The id that the client sent, where it is short and plain, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and 0 < len(value) <= _LONGEST_ID:
            text = value.decode("latin-1")
            if all(sign.isascii() and (sign.isalnum() or sign in "-_.:") for sign in text):
                return str(text)
    return secrets.token_hex(8)
