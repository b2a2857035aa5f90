"""`/docs` with its own assets: it works in a closed network."""

import html
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

ASSETS: Final = Path(__file__).parent / "assets"

_PAGE: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({{url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true}})</script>
</body></html>
"""


def install_documentation(api: FastAPI) -> None:
    """Serve the page and what it loads."""
    api.mount("/docs/assets", StaticFiles(directory=ASSETS), name="docs-assets")
    page = _PAGE.format(title=html.escape(api.title))

    @api.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page)
