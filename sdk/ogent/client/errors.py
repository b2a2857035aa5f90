"""What can go wrong between a program and a controller, as a tree under OgentError.

An answer of the controller that is an error becomes the ApiError class of its `code`; a
code that this version does not know becomes a plain ApiError, so nothing is lost.
"""

from collections.abc import Mapping
from typing import Final

from ogent.protocol.problems import FieldError, Problem


class OgentError(Exception):
    """Root of every error that `ogent.client` raises on purpose."""


class ConnectionFailed(OgentError):
    """The controller could not be reached, or the connection broke before the answer was whole.

    `nothing_sent` is true where no byte of the request left: repeating it is safe then.
    """

    def __init__(self, url: str, reason: str, *, nothing_sent: bool) -> None:
        verb = "cannot reach" if nothing_sent else "lost the connection to"
        super().__init__(f"{verb} the controller at {url}: {reason}")
        self.url = url
        self.reason = reason
        self.nothing_sent = nothing_sent


class NotSignedIn(OgentError):
    """There is neither a token nor a name and password to sign in with."""


class InvalidId(OgentError, ValueError):
    """A text that cannot be an id in a path."""


class UnusableAddress(OgentError, ValueError):
    """An address that no request can be sent to."""


class UnusableToken(OgentError, ValueError):
    """A token that no request can carry; its text is in no message."""


class ProtocolError(OgentError):
    """The other side does not speak as a controller does."""


class UnexpectedAnswer(ProtocolError):
    """An HTTP answer that no controller gives, such as a proxy's error page."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(f"HTTP {status}: {what}")
        self.status = status


class OutputGap(ProtocolError):
    """The controller does not have chunk `expected` and goes on with `got`.

    Following again with `from_seq=got` skips what is missing.
    """

    def __init__(self, command_id: str, expected: int, got: int) -> None:
        super().__init__(f"output of {command_id} is missing from chunk {expected} to {got - 1}")
        self.command_id = command_id
        self.expected = expected
        self.got = got


class ApiError(OgentError):
    """The controller refused: `code`, HTTP `status`, `detail`, and for bad input the `errors`.

    `retry_after_s` is what a `Retry-After` header asked for, else None.
    """

    def __init__(self, problem: Problem, *, retry_after_s: float | None = None) -> None:
        super().__init__(problem.detail or problem.title)
        self.code: str = problem.code
        self.status: int = problem.status
        self.title: str = problem.title
        self.detail: str = problem.detail
        self.errors: list[FieldError] = list(problem.errors or [])
        self.retry_after_s = retry_after_s


class ValidationFailed(ApiError):
    """422 `validation_error`: `errors` says which field and why."""


class TooLarge(ApiError):
    """422 `too_large`: a part of the request is over its bound."""


class InvalidFilter(ApiError):
    """422 `invalid_filter`: not a pattern that RE2 accepts."""


class InvalidSelector(ApiError):
    """422 `invalid_selector`: not a label selector."""


class MalformedRequest(ApiError):
    """400 `malformed_request`: the controller could not read the request."""


class BodyTooLarge(ApiError):
    """413 `body_too_large`: the request body is over its bound."""


class InvalidCredentials(ApiError):
    """401 `invalid_credentials`: unknown user or wrong password."""


class Unauthorized(ApiError):
    """401 `unauthorized`: the token is not, or no longer, good."""


class TokenExpired(ApiError):
    """401 `token_expired`: sign in again."""


class Forbidden(ApiError):
    """403 `forbidden`: the account may not do this."""


class BlockedByPolicy(ApiError):
    """403 `blocked_by_policy`: nothing ran."""


class NotFound(ApiError):
    """404 `not_found`: no such path; perhaps the controller is of another version."""


class AgentNotFound(ApiError):
    """404 `agent_not_found`: no such agent, or not one that the account may see."""


class CommandNotFound(ApiError):
    """404 `command_not_found`: no such command, or not one that the account may see."""


class UserNotFound(ApiError):
    """404 `user_not_found`."""


class TokenNotFound(ApiError):
    """404 `token_not_found`."""


class MethodNotAllowed(ApiError):
    """405 `method_not_allowed`: perhaps the controller is of another version."""


class AgentOffline(ApiError):
    """409 `agent_offline`: the agent is not connected; nothing was started."""


class IdempotencyConflict(ApiError):
    """409 `idempotency_conflict`: the key was used for another request."""


class InvalidState(ApiError):
    """409 `invalid_state`: not possible in the command's state."""


class UserExists(ApiError):
    """409 `user_exists`."""


class LastAdministrator(ApiError):
    """409 `last_administrator`: one administrator has to stay."""


class RangeNotSatisfiable(ApiError):
    """416 `range_not_satisfiable`: the range lies outside the stream."""


class TooManyAttempts(ApiError):
    """429 `too_many_attempts`: failed sign-ins; wait `retry_after_s`."""


class TooManyCommands(ApiError):
    """429 `too_many_commands`: commands in flight; nothing was started."""


class TooManyRequests(ApiError):
    """429 `too_many_requests`: wait `retry_after_s`."""


class OutputDamaged(ApiError):
    """500 `output_damaged`: the controller has lost a part of the command's stored output."""


class TooManySubscriptions(ApiError):
    """429 `too_many_subscriptions`: unsubscribe from a command first, or use another socket."""


class UnknownEvent(ApiError):
    """404 `unknown_event`."""


class InternalError(ApiError):
    """500 `internal_error`: the controller failed; its log says why."""


class Draining(ApiError):
    """503 `draining`: the controller is stopping; nothing was started."""


class StorageFull(ApiError):
    """503 `storage_full`: the controller's disk is full; nothing was started."""


class StorageUnavailable(ApiError):
    """503 `storage_unavailable`: the controller's database does not answer."""


#: The class of every code in `ogent.protocol.problems.CODES`.
ERRORS: Final[Mapping[str, type[ApiError]]] = {
    "validation_error": ValidationFailed,
    "too_large": TooLarge,
    "invalid_filter": InvalidFilter,
    "invalid_selector": InvalidSelector,
    "malformed_request": MalformedRequest,
    "body_too_large": BodyTooLarge,
    "invalid_credentials": InvalidCredentials,
    "unauthorized": Unauthorized,
    "token_expired": TokenExpired,
    "forbidden": Forbidden,
    "blocked_by_policy": BlockedByPolicy,
    "not_found": NotFound,
    "agent_not_found": AgentNotFound,
    "command_not_found": CommandNotFound,
    "user_not_found": UserNotFound,
    "token_not_found": TokenNotFound,
    "method_not_allowed": MethodNotAllowed,
    "agent_offline": AgentOffline,
    "idempotency_conflict": IdempotencyConflict,
    "invalid_state": InvalidState,
    "user_exists": UserExists,
    "last_administrator": LastAdministrator,
    "range_not_satisfiable": RangeNotSatisfiable,
    "too_many_attempts": TooManyAttempts,
    "too_many_commands": TooManyCommands,
    "too_many_requests": TooManyRequests,
    "too_many_subscriptions": TooManySubscriptions,
    "output_damaged": OutputDamaged,
    "unknown_event": UnknownEvent,
    "internal_error": InternalError,
    "draining": Draining,
    "storage_full": StorageFull,
    "storage_unavailable": StorageUnavailable,
}


def error_for(problem: Problem, *, retry_after_s: float | None = None) -> ApiError:
    """The error that `problem` stands for."""
    return ERRORS.get(problem.code, ApiError)(problem, retry_after_s=retry_after_s)
