"""What an agent is told, and its sealed form: bytes that are stored and forwarded as they are."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.ids import AgentId, CommandId, ControlId, UserName
from app.domain.models.command_line import CommandLine
from app.domain.models.states import Action, State


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """Run this line. Not to be started after `expires_at` (the controller's clock)."""

    command_id: CommandId
    agent_id: AgentId
    line: CommandLine
    execution_target: str
    timeout_s: float | None
    max_output_bytes: int
    requester: UserName
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlOrder:
    """Do this with a command that the agent holds."""

    control_id: ControlId
    command_id: CommandId
    agent_id: AgentId
    action: Action
    requester: UserName
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SealedOrder:
    """An order as bytes with its signature; `key_id` names the key, empty while unsigned."""

    order: bytes
    signature: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """A run order that its agent has not acknowledged, and the session it was last offered in."""

    command_id: CommandId
    offered_epoch: int | None
    sealed: SealedOrder


@dataclass(frozen=True, slots=True)
class PendingControl:
    """A control order that its agent has not acknowledged; `state` is its command's."""

    control_id: ControlId
    command_id: CommandId
    action: Action
    state: State
    sealed: SealedOrder
