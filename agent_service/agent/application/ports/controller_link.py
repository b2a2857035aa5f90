"""The way to the controller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.domain.ids import AgentId, CommandId
from agent.domain.models.execution import Outcome, Report, State
from agent.domain.models.executor import ExecutionType
from agent.domain.models.output import Chunk, OutputTotals, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the agent says of its host."""

    platform: str
    version: str
    python: str
    hostname: str
    agent_version: str
    executors: Sequence[ExecutionType]


@dataclass(frozen=True, slots=True)
class Held:
    """A command whose outcome the controller has not acknowledged."""

    command_id: CommandId
    state: State
    next_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the agent says when its session begins."""

    agent_id: AgentId
    facts: HostFacts
    labels: Mapping[str, str]
    last_epoch: int
    held: Sequence[Held]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The controller has the frame, or `refusal` says why it never will.

    `is_unknown`: because it does not know the command, so nobody waits for its end.
    """

    refusal: str | None = None
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Incomplete:
    """The outcome was not taken: `stored` is what the controller has, send from there.

    Where that is all that was sent, the controller's bytes differ from those that were sent.
    """

    stored: Position


class ControllerLink(Protocol):
    """One session with the controller. Every method raises LinkLost once it is over."""

    async def register(self, registration: Registration) -> None:
        """Begin the session; the answer comes as a message of its own."""
        ...

    async def send_chunk(self, command_id: CommandId, chunk: Chunk) -> None:
        """Send a chunk; it may be lost. Frames arrive in the order in which they were sent."""
        ...

    async def drained(self) -> None:
        """Return when what was sent so far has left this process."""
        ...

    async def send_report(self, report: Report) -> Accepted:
        """Send where an execution stands; raises NotAcknowledged when no answer came in time."""
        ...

    async def send_outcome(self, outcome: Outcome, totals: OutputTotals) -> Accepted | Incomplete:
        """Send how an execution ended and what it wrote.

        Raises NotAcknowledged when no answer came in time.
        """
        ...
