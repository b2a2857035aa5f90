"""What the agent is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from agent.domain.ids import AgentId, CommandId, ControlId


class Action(StrEnum):
    """What may be done to an execution."""

    CANCEL = "cancel"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A line of shell to run once. Times are the controller's; `stdin` None is an empty input.

    `target` is `auto`, `local`, `ssh` or `ssh:NAME`; `timeout_s` counts from the start of the
    process; beyond `max_output_bytes` of both streams together, output is counted and not kept.
    """

    id: CommandId
    agent_id: AgentId
    command: str
    target: str
    max_output_bytes: int
    expires_at: datetime
    timeout_s: float | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    stdin: str | None = None

    @property
    def size(self) -> int:
        """Characters of text that it holds: what it costs to remember it."""
        given = sum(len(name) + len(value) for name, value in self.env.items())
        return len(self.command) + given + len(self.stdin or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Something to do to a command that the agent holds; doing it twice changes nothing."""

    id: ControlId
    command_id: CommandId
    agent_id: AgentId
    action: Action
    expires_at: datetime
