"""`/openapi.json` and `/docs`. Both are made once, when they are first asked for."""

import asyncio
import functools
import json

from fastapi import FastAPI, Request
from fastapi.responses import Response

from ortcam.serve.openapi.document import document
from ortcam.serve.openapi.reference import POLICY, page, with_address
from ortcam.serve.settings import Settings

__all__ = ["add_documentation"]


def add_documentation(app: FastAPI) -> None:
    """Add both paths to an application that has its settings."""
    settings: Settings = app.state.settings

    @functools.cache
    def written() -> tuple[bytes, str]:
        found = document(settings)
        return json.dumps(found, ensure_ascii=False).encode(), page(found)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        """All paths of the server in the OpenAPI format, version 3.1."""
        text, _ = await asyncio.to_thread(written)
        return Response(text, media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        """The same as a page."""
        _, text = await asyncio.to_thread(written)
        here = with_address(text, str(request.base_url).rstrip("/"))
        return Response(here, media_type="text/html", headers={"Content-Security-Policy": POLICY})
