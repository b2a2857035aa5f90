"""Whether the controller lives, and whether it should be given work."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from app.application.use_cases import UseCases
from ogent.protocol import resources


def health_router(use_cases: UseCases) -> APIRouter:
    """Routes of health; nobody signs in for them."""
    router = APIRouter(tags=["health"])

    @router.get("/health")
    async def health() -> resources.Health:
        """The process answers."""
        return resources.Health(status="healthy")

    @router.get("/ready", response_model=resources.Health)
    async def ready() -> Response:
        """Whether it takes work: 503 while it stops or without its database."""
        use_cases.lifecycle.require_ready()
        await use_cases.queries.require_storage()
        return JSONResponse({"status": "healthy"})

    return router
