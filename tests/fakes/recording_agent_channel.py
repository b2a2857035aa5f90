"""The way to an agent that a test plays itself."""

import asyncio
from dataclasses import dataclass, field

from app.application.ports.agent_channel import OrderAcknowledged
from app.domain.errors import AgentUnreachable
from app.domain.models.agent import Session
from app.domain.models.command import Failure
from app.domain.models.order import SealedOrder

DEADLINE_S = 20.0


@dataclass(slots=True)
class Sent:
    """An order on its way: the test answers it, or lets it get lost."""

    kind: str
    session: Session
    sealed: SealedOrder
    answer: asyncio.Future[OrderAcknowledged] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def acknowledge(self) -> None:
        self.answer.set_result(OrderAcknowledged())

    def refuse(self, code: str, message: str) -> None:
        self.answer.set_result(OrderAcknowledged(Failure(code, message)))

    def put_off(self) -> None:
        self.answer.set_result(OrderAcknowledged(is_put_off=True))

    def be_gone(self) -> None:
        self.answer.set_result(OrderAcknowledged(is_gone=True))

    def lose(self) -> None:
        self.answer.set_exception(AgentUnreachable("no acknowledgement came"))


class RecordingAgentChannel:
    """An AgentChannel whose orders arrive at the test, in `sent` and by `next`."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.superseded: list[Session] = []
        self._arrived: asyncio.Queue[Sent] = asyncio.Queue()

    async def next(self) -> Sent:
        """The next order that was sent and not yet taken."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._arrived.get()

    async def send_run(self, session: Session, sealed: SealedOrder) -> OrderAcknowledged:
        return await self._send(Sent("run", session, sealed))

    async def send_control(self, session: Session, sealed: SealedOrder) -> OrderAcknowledged:
        return await self._send(Sent("control", session, sealed))

    async def supersede(self, session: Session) -> None:
        self.superseded.append(session)

    async def _send(self, sent: Sent) -> OrderAcknowledged:
        self.sent.append(sent)
        self._arrived.put_nowait(sent)
        return await sent.answer
