"""Error codes: their HTTP status and title, and the RFC 9457 body that carries them."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict


class Kind(NamedTuple):
    """What a code means to HTTP."""

    status: int
    title: str


#: Every `code` that an answer of the controller may carry.
CODES: Final[Mapping[str, Kind]] = {
    "validation_error": Kind(422, "The request does not have the expected form"),
    "too_large": Kind(422, "A part of the request is over its bound"),
    "invalid_filter": Kind(422, "The filter is not a pattern that RE2 accepts"),
    "invalid_selector": Kind(422, "The selector is not a label selector"),
    "malformed_request": Kind(400, "The request could not be read"),
    "body_too_large": Kind(413, "The request body is over its bound"),
    "invalid_credentials": Kind(401, "Unknown user or wrong password"),
    "unauthorized": Kind(401, "No valid token"),
    "token_expired": Kind(401, "The token has expired"),
    "forbidden": Kind(403, "Not allowed"),
    "blocked_by_policy": Kind(403, "Refused by policy"),
    "not_found": Kind(404, "Not found"),
    "agent_not_found": Kind(404, "No such agent"),
    "command_not_found": Kind(404, "No such command"),
    "user_not_found": Kind(404, "No such user"),
    "token_not_found": Kind(404, "No such token"),
    "method_not_allowed": Kind(405, "Method not allowed"),
    "agent_offline": Kind(409, "The agent is not connected"),
    "idempotency_conflict": Kind(409, "The key was used for another request"),
    "invalid_state": Kind(409, "Not possible in the command's state"),
    "user_exists": Kind(409, "The user exists"),
    "last_administrator": Kind(409, "The last administrator has to stay"),
    "range_not_satisfiable": Kind(416, "The range lies outside the stream"),
    "too_many_attempts": Kind(429, "Too many failed sign-ins"),
    "too_many_commands": Kind(429, "Too many commands in flight"),
    "too_many_requests": Kind(429, "Too many requests"),
    "too_many_subscriptions": Kind(429, "Too many commands followed at once"),
    "unknown_event": Kind(404, "No such event"),
    "internal_error": Kind(500, "The controller failed"),
    "output_damaged": Kind(500, "Stored output is damaged"),
    "draining": Kind(503, "The controller is stopping"),
    "storage_full": Kind(503, "The controller's disk is full"),
    "storage_unavailable": Kind(503, "The controller's database does not answer"),
}


class FieldError(BaseModel):
    """One thing that is wrong with a request: where, and what."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    loc: list[str | int]
    msg: str


class Problem(BaseModel):
    """`application/problem+json`: what happened, to what, and what to do next."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] | None = None


def problem(code: str, detail: str, errors: list[FieldError] | None = None) -> Problem:
    """The body for `code`, which must be in CODES."""
    kind = CODES[code]
    return Problem(
        type=f"urn:ogent:problem:{code}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=code,
        errors=errors,
    )
