"""An agent: a machine that runs commands, and its session if it has one."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from app.domain.errors import AgentOffline
from app.domain.events import AgentChanged, AgentRegistered, AgentReleased, Event
from app.domain.ids import AgentId, SessionId

#: A last epoch over this is no agent's: counting on from it would come to the end of the numbers.
LAST_EPOCH_MAX: Final = 2**62


def believed_epoch(last_epoch: int) -> int:
    """The last epoch that an agent says it knows; 0 where it cannot be."""
    return last_epoch if last_epoch <= LAST_EPOCH_MAX else 0


@dataclass(frozen=True, slots=True)
class SshTarget:
    """A host that the agent reaches by SSH, as it names it."""

    name: str
    target: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """What an agent says of itself. Untrusted text."""

    platform: str = ""
    version: str = ""
    python: str = ""
    hostname: str = ""
    agent_version: str = ""
    executors: Sequence[str] = ("local",)
    ssh_enabled: bool = False
    ssh_target: str | None = None
    ssh_targets: Sequence[SshTarget] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """One live connection of an agent. Frames of a smaller epoch are refused."""

    agent_id: AgentId
    sid: SessionId
    epoch: int


@dataclass(slots=True, kw_only=True)
class Agent:
    """A machine that runs commands; `epoch` is the number of its newest session.

    `confirmed_epoch` is the newest that it has acknowledged from its disk: a data folder that does
    not know it was restored from an older copy, copied, or wiped.
    """

    id: AgentId
    epoch: int = 0
    confirmed_epoch: int = 0
    sid: SessionId | None = None
    connected_at: datetime | None = None
    last_seen_at: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    facts: AgentFacts = AgentFacts()
    _events: list[Event] = field(default_factory=list, repr=False, compare=False)

    @property
    def is_online(self) -> bool:
        """Whether it has a session."""
        return self.sid is not None

    def require_online(self) -> None:
        """Raise AgentOffline unless it has a session."""
        if not self.is_online:
            raise AgentOffline(
                f"agent {self.id} is not connected: start it, or submit with queue=true "
                "to run the command when it is back"
            )

    def resolve_target(self, wanted: str) -> str:
        """What `auto` means for this agent: `ssh` where it has an SSH target, else `local`."""
        if wanted != "auto":
            return wanted
        return "ssh" if self.facts.ssh_target is not None else "local"

    def register(
        self,
        sid: SessionId,
        facts: AgentFacts,
        labels: Mapping[str, str],
        *,
        at: datetime,
        last_epoch: int = 0,
    ) -> Session:
        """Open its next session; any older one is over.

        Its epoch is one that neither this controller nor the agent has seen: a controller that was
        restored from an older copy knows less than the agent does.
        """
        self.epoch = max(self.epoch, believed_epoch(last_epoch)) + 1
        self.sid = sid
        self.connected_at = self.last_seen_at = at
        self.facts, self.labels = facts, dict(labels)
        self._events.append(AgentRegistered(self.id))
        return Session(self.id, sid, self.epoch)

    def confirm(self, epoch: int) -> None:
        """Note that session `epoch` is on its disk; an older one, or a repeat, changes nothing."""
        self.confirmed_epoch = max(self.confirmed_epoch, epoch)

    def has_forgotten(self, last_epoch: int) -> bool:
        """Whether it acknowledged a newer epoch than the last that its data folder knows."""
        return believed_epoch(last_epoch) < self.confirmed_epoch

    def release(self, epoch: int, *, at: datetime) -> bool:
        """End session `epoch`; False, and nothing happens, when a newer one is open."""
        if self.sid is None or self.epoch != epoch:
            return False
        self.sid = None
        self.last_seen_at = at
        self._events.append(AgentReleased(self.id))
        return True

    def describe(self, facts: AgentFacts, *, at: datetime) -> None:
        """Take changed facts."""
        self.facts = facts
        self.last_seen_at = at
        self._events.append(AgentChanged(self.id))

    def snapshot(self) -> "Agent":
        """A copy without anything to tell."""
        twin = copy(self)
        twin._events, twin.labels = [], dict(self.labels)
        return twin

    def pull_events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events
