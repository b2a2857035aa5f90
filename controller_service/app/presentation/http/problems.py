"""Errors as `application/problem+json` (RFC 9457)."""

import math

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from app.domain.errors import ControllerError, RangeNotSatisfiable, Unauthenticated
from ogent.protocol.problems import CODES, FieldError, Problem, problem

log = structlog.get_logger(__name__)

_BY_STATUS = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed"}


def problem_response(body: Problem, headers: dict[str, str] | None = None) -> Response:
    """`body` with its status."""
    return JSONResponse(
        body.model_dump(mode="json", exclude_none=True),
        status_code=body.status,
        headers=headers,
        media_type="application/problem+json",
    )


def of_error(error: ControllerError) -> Problem:
    """The body for one of our errors; one without a published code is our failure."""
    code = error.code if error.code in CODES else "internal_error"
    return problem(code, error.message)


def install_error_handlers(api: FastAPI) -> None:
    """Answer every error of `api` in the one form."""
    api.add_exception_handler(ControllerError, _on_controller_error)
    api.add_exception_handler(RequestValidationError, _on_validation_error)
    api.add_exception_handler(HTTPException, _on_http_exception)
    api.add_exception_handler(Exception, _on_failure)


async def _on_controller_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ControllerError)  # noqa: S101 - registered for it alone
    headers: dict[str, str] = {}
    if isinstance(exc, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if exc.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(exc.retry_after_s))
    if isinstance(exc, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{exc.length}"
    return problem_response(of_error(exc), headers)


async def _on_validation_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 - registered for it alone
    errors = [FieldError(loc=list(e["loc"]), msg=e["msg"]) for e in exc.errors()]
    first = errors[0]
    where = ".".join(str(part) for part in first.loc)
    return problem_response(problem("validation_error", f"{where}: {first.msg}", errors))


async def _on_http_exception(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for it alone
    code = _BY_STATUS.get(exc.status_code, "malformed_request")
    headers = dict(exc.headers) if exc.headers else None
    return problem_response(problem(code, str(exc.detail)), headers)


async def _on_failure(request: Request, exc: Exception) -> Response:
    log.error("a request failed", path=request.url.path, method=request.method, exc_info=exc)
    return problem_response(
        problem("internal_error", "this is a bug: the controller's log has the details")
    )
