"""Wake-ups: "look again", without data. Losing one costs time, never truth."""

from contextlib import AbstractContextManager
from typing import Protocol


class Bell(Protocol):
    """Rings when its topic was notified since the last wait."""

    async def wait(self) -> None:
        """Return as soon as the topic was notified since the last return."""
        ...


class Wakeups(Protocol):
    """Topics that somebody notifies and others listen to."""

    def notify(self, topic: str) -> None:
        """Ring every bell of `topic`; never waits, keeps nothing."""
        ...

    def listen(self, topic: str) -> AbstractContextManager[Bell]:
        """A bell of `topic`, for as long as the context is open."""
        ...


def command_topic(command_id: str) -> str:
    """The topic of one command: its state or its output changed."""
    return f"command:{command_id}"


def agent_topic(agent_id: str) -> str:
    """The topic of one agent: it has orders to get."""
    return f"agent:{agent_id}"


#: The topic of the list of agents.
AGENTS_TOPIC = "agents"
