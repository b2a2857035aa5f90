"""Orders to agents over Socket.IO."""

from typing import Final

import socketio
from pydantic import ValidationError
from socketio.exceptions import TimeoutError as AcknowledgementTimeout

from app import wire
from app.application.cancellation import honour_cancellation
from app.application.ports.agent_channel import OrderAcknowledged
from app.domain.errors import AgentUnreachable, MalformedAnswer
from app.domain.models.agent import Session
from app.domain.models.order import SealedOrder
from ogent.protocol.messages import OrderAck
from ogent.protocol.names import NAMESPACE, OrderEvent

#: How long an agent may take to write an order down before it is sent again.
ACK_TIMEOUT_S: Final = 15.0


class SocketIOAgentChannel:
    """An AgentChannel over a Socket.IO server that it does not own."""

    def __init__(self, server: socketio.AsyncServer, *, ack_timeout_s: float) -> None:
        self._server = server
        self._ack_timeout_s = ack_timeout_s

    async def send_run(self, session: Session, sealed: SealedOrder) -> OrderAcknowledged:
        """Deliver a run order."""
        return await self._send(OrderEvent.EXECUTE_COMMAND, session, sealed)

    async def send_control(self, session: Session, sealed: SealedOrder) -> OrderAcknowledged:
        """Deliver a control order."""
        return await self._send(OrderEvent.CONTROL_COMMAND, session, sealed)

    async def supersede(self, session: Session) -> None:
        """Tell the session, and close it."""
        await self._server.emit(OrderEvent.SUPERSEDED, {}, to=session.sid, namespace=NAMESPACE)
        await self._server.disconnect(session.sid, namespace=NAMESPACE)

    async def _send(
        self, event: OrderEvent, session: Session, sealed: SealedOrder
    ) -> OrderAcknowledged:
        try:
            answer = await self._server.call(
                event,
                wire.signed_order(sealed).model_dump(),
                to=session.sid,
                namespace=NAMESPACE,
                timeout=self._ack_timeout_s,
            )
            honour_cancellation()
            return wire.acknowledged(OrderAck.model_validate(answer))
        except AcknowledgementTimeout as exc:
            raise AgentUnreachable(f"agent {session.agent_id} did not acknowledge") from exc
        except ValidationError as exc:
            raise MalformedAnswer(
                f"agent {session.agent_id} answered an order with nonsense"
            ) from exc
