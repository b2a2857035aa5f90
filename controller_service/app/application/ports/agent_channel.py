"""The way to an agent."""

from dataclasses import dataclass
from typing import Protocol

from app.domain.models.agent import Session
from app.domain.models.command import Failure
from app.domain.models.order import SealedOrder


@dataclass(frozen=True, slots=True)
class OrderAcknowledged:
    """The agent's answer to an order: it is in its journal, or `refusal` says why it never will.

    `is_put_off`: not now, but the same order may be sent again later. `is_gone`: the agent knows
    the command and holds nothing of it any more.
    """

    refusal: Failure | None = None
    is_put_off: bool = False
    is_gone: bool = False


class AgentChannel(Protocol):
    """Sends orders to an agent's session."""

    async def send_run(self, session: Session, sealed: SealedOrder) -> OrderAcknowledged:
        """Deliver a run order; returns once the agent has answered.

        Raises AgentUnreachable when no answer came: the agent may or may not have it, and the
        same order may be sent again. Raises MalformedAnswer for an answer that is none: the
        session is not to be used any more.
        """
        ...

    async def send_control(self, session: Session, sealed: SealedOrder) -> OrderAcknowledged:
        """Deliver a control order; as `send_run`."""
        ...

    async def supersede(self, session: Session) -> None:
        """Tell a session that a newer one has replaced it, and close it."""
        ...
