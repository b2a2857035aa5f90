"""The REST application."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.application.use_cases import UseCases
from app.presentation.http.agents import agents_router
from app.presentation.http.auth import auth_router
from app.presentation.http.commands import commands_router
from app.presentation.http.dependencies import current_principal
from app.presentation.http.documentation import install_documentation
from app.presentation.http.health import health_router
from app.presentation.http.output import output_router
from app.presentation.http.problems import install_error_handlers
from ogent.protocol.problems import Problem
from ogent.protocol.version import VERSION

_DESCRIPTION = "Run commands on machines that you cannot see, and read every byte as it is written."


def create_api(use_cases: UseCases, allowed_origins: Sequence[str]) -> FastAPI:
    """REST over `use_cases`; pages of `allowed_origins` may call it as those of its own may."""
    api = FastAPI(
        title="Ogent",
        version=VERSION,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat whatever Host header came
        responses={"default": {"model": Problem, "description": "What went wrong"}},
    )
    if allowed_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=list(allowed_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Idempotency-Key", "Last-Event-ID", "Range"],
            expose_headers=["Content-Range", "Location", "Retry-After"],
        )
    install_error_handlers(api)
    install_documentation(api)
    current = current_principal(use_cases.authenticate)
    api.include_router(auth_router(use_cases, current))
    api.include_router(agents_router(use_cases, current))
    api.include_router(commands_router(use_cases, current))
    api.include_router(output_router(use_cases, current))
    api.include_router(health_router(use_cases))
    return api
