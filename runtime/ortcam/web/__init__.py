"""The page that explains in the browser, and its server."""
