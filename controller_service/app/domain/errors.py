"""What can go wrong, as a tree: the kind decides the HTTP status, the code is for programs."""

from typing import ClassVar


class ControllerError(Exception):
    """Root of the controller's errors. `code` is stable; the message is for people."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class Invalid(ControllerError):
    """The request cannot be understood or is over a bound."""

    code = "validation_error"


class Unauthenticated(ControllerError):
    """Nobody knows who asks."""

    code = "unauthorized"


class Denied(ControllerError):
    """It is known who asks, and he may not."""

    code = "forbidden"


class NotFound(ControllerError):
    """It does not exist, or not for the one who asks."""

    code = "not_found"


class Conflict(ControllerError):
    """Not possible in the present state."""

    code = "invalid_state"


class Throttled(ControllerError):
    """Too much at once; later it may be possible."""

    code = "too_many_requests"


class Unavailable(ControllerError):
    """The controller itself cannot do it now."""

    code = "storage_unavailable"


class TooLarge(Invalid):
    """A part of the request is over its bound."""

    code = "too_large"


class InvalidFilter(Invalid):
    """A pattern that RE2 does not accept."""

    code = "invalid_filter"


class InvalidSelector(Invalid):
    """Text that is no label selector."""

    code = "invalid_selector"


class InvalidCredentials(Unauthenticated):
    """Unknown user or wrong password: never said which."""

    code = "invalid_credentials"


class TokenExpired(Unauthenticated):
    """The token was good once."""

    code = "token_expired"


class AgentNotFound(NotFound):
    """No such agent, or none that the user may see."""

    code = "agent_not_found"


class CommandNotFound(NotFound):
    """No such command, or none that the user may see."""

    code = "command_not_found"


class UserNotFound(NotFound):
    """No such user."""

    code = "user_not_found"


class TokenNotFound(NotFound):
    """No such named token of this user."""

    code = "token_not_found"


class AgentOffline(Conflict):
    """The agent has no session."""

    code = "agent_offline"


class InvalidState(Conflict):
    """The command's state does not allow it."""

    code = "invalid_state"


class IdempotencyConflict(Conflict):
    """The key was used for another request."""

    code = "idempotency_conflict"


class UserExists(Conflict):
    """The name is taken."""

    code = "user_exists"


class LastAdministrator(Conflict):
    """Without it nobody could administrate."""

    code = "last_administrator"


class TooManyAttempts(Throttled):
    """Too many failed sign-ins."""

    code = "too_many_attempts"


class TooManyCommands(Throttled):
    """Too many commands wait for one agent."""

    code = "too_many_commands"


def queue_is_full(agent_id: str, waiting: int) -> TooManyCommands:
    """The refusal of one more command for an agent for which `waiting` are queued."""
    return TooManyCommands(
        f"{waiting} commands wait for agent {agent_id} already: cancel some, or wait until it has "
        "taken them",
        retry_after_s=60,
    )


class OutputDamaged(Unavailable):
    """Output that was stored is not there any more."""

    code = "output_damaged"


class TooManySubscriptions(Throttled):
    """One socket follows too many commands at once."""

    code = "too_many_subscriptions"


class StorageUnavailable(Unavailable):
    """The database does not answer."""

    code = "storage_unavailable"


class StorageFull(Unavailable):
    """The database's disk is full."""

    code = "storage_full"


class Draining(Unavailable):
    """The controller is stopping."""

    code = "draining"


class RangeNotSatisfiable(ControllerError):
    """The range starts behind the end of the stream; `length` is where it ends."""

    code = "range_not_satisfiable"

    def __init__(self, message: str, *, length: int) -> None:
        super().__init__(message)
        self.length = length


class IllegalMove(Conflict):
    """A state that cannot follow the present one: a bug, or a frame that came too late."""

    code = "invalid_state"


class OutputGap(Conflict):
    """A chunk does not follow what is stored: something before it is missing."""

    code = "incomplete"


class OutputOverrun(Conflict):
    """A chunk goes beyond what its command's order allows."""

    code = "output_overrun"


class StaleSession(Conflict):
    """A frame of a session that a newer one has replaced."""

    code = "stale_session"


class AgentUnreachable(Unavailable):
    """The agent did not acknowledge in time; it may or may not have received the order."""

    code = "agent_unreachable"


class MalformedAnswer(Invalid):
    """An agent answered an order with something else than an acknowledgement."""

    code = "malformed_answer"
