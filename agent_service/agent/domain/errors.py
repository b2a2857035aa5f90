"""What can go wrong in the agent, as a tree; `code` is for programs, the message for people."""

from typing import ClassVar


class AgentError(Exception):
    """Root of the agent's errors."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class IllegalMove(AgentError):
    """A state that cannot follow the present one: a bug."""

    code = "invalid_state"


class Refused(AgentError):
    """An order that the agent does not take; nothing ran."""

    code = "refused"


class MalformedOrder(Refused):
    """Bytes that are no order of a kind that this agent knows."""

    code = "malformed_order"


class WrongAgent(Refused):
    """The order is for another agent."""

    code = "wrong_agent"


class OrderExpired(Refused):
    """The order came, or got its turn, after the time by which it had to start."""

    code = "expired"


class AgentBusy(Refused):
    """As many orders wait here as may."""

    code = "agent_busy"


class AgentStopping(Refused):
    """The agent is stopping and takes no new work; the order is good for its next start."""

    code = "draining"


class NoRoom(AgentBusy):
    """The agent's disk is full: what it accepts it could not remember. There may be room later."""


class UnknownCommand(Refused):
    """A control for a command that this agent does not hold."""

    code = "unknown_command"


class InvalidState(Refused):
    """The execution's state does not allow what was asked."""

    code = "invalid_state"


class CannotStart(AgentError):
    """No process could be made for an order."""

    code = "spawn_failed"


class SpawnFailed(CannotStart):
    """The system refused to start the process."""

    code = "spawn_failed"


class NoRoomToStart(AgentError):
    """The disk does not take what has to be written down before a start; it may later."""

    code = "no_room"


class NoExecutor(CannotStart):
    """Nothing here can run commands on that target."""

    code = "no_executor"


class LinkLost(AgentError):
    """The session with the controller is over."""

    code = "link_lost"


class NotAcknowledged(AgentError):
    """The controller did not acknowledge, or not now: it may or may not have the frame."""

    code = "not_acknowledged"


class StartedBefore(AgentError):
    """A command was started once, and whoever did it no longer knows of it."""

    code = "agent_state_lost"


class NeverStarted(AgentError):
    """A command is unknown to whoever was to start it, and would be known had it been started."""

    code = "never_started"


class SpoolUnreadable(AgentError):
    """The spool cannot be read now; nothing of it is damaged by that."""

    code = "spool_unreadable"


class JournalUnavailable(AgentError):
    """The journal could not be written: the disk is full, or fails."""

    code = "journal_unavailable"
