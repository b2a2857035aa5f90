"""What happened: past tense, no data that a reader of the store would not find there."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.ids import AgentId, CommandId
from app.domain.models.order import QueuedRun
from app.domain.models.states import State


@dataclass(frozen=True, slots=True)
class CommandQueued:
    """A command was accepted for an agent; `run` is the order that it waits for."""

    command_id: CommandId
    agent_id: AgentId
    run: QueuedRun


@dataclass(frozen=True, slots=True)
class CommandMoved:
    """A command entered `state`."""

    command_id: CommandId
    agent_id: AgentId
    at: datetime
    state: State


@dataclass(frozen=True, slots=True)
class OutputAppended:
    """More output of a command can be read."""

    command_id: CommandId


@dataclass(frozen=True, slots=True)
class ControlRequested:
    """A user asked for something to be done with a command that is at its agent."""

    command_id: CommandId
    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class AgentRegistered:
    """An agent's session opened."""

    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class AgentReleased:
    """An agent's session ended."""

    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class AgentChanged:
    """An agent reported other facts."""

    agent_id: AgentId


Event = (
    CommandQueued
    | CommandMoved
    | OutputAppended
    | ControlRequested
    | AgentRegistered
    | AgentReleased
    | AgentChanged
)
