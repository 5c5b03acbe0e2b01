"""What the server says of itself: `/openapi.json`, and `/docs`, a page of it that needs no other site."""

from ortcam.serve.openapi.routes import add_documentation

__all__ = ["add_documentation"]
