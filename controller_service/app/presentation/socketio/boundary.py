"""Every event is answered: a handler that raises would leave its caller waiting in vain."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import socketio
import structlog
from pydantic import BaseModel, ValidationError

from app.domain.errors import ControllerError
from ogent.protocol.names import NAMESPACE

log = structlog.get_logger(__name__)

M = TypeVar("M", bound=BaseModel)
H = TypeVar("H")

#: What an acknowledgement carries: JSON or MessagePack, keyed by the words of the protocol.
Answer = dict[str, Any]


class UnknownEvent(ControllerError):
    """A name that is not in the table of handlers."""

    code = "unknown_event"


def parse(model: type[M], data: object) -> M:
    """`data` as `model`; raises Refused, which names the field."""
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        raise Refused(_sentence(exc)) from exc


class Refused(ControllerError):
    """A payload that does not have the expected form."""

    code = "validation_error"


def refusal(code: str, message: str) -> Answer:
    """The acknowledgement of what was not done; the message may repeat a peer's words."""
    text = message.encode("utf-8", "backslashreplace").decode()  # half a pair is no text
    return {"ok": False, "error": {"code": code, "message": text}}


def unknown_event(name: object) -> Answer:
    """The acknowledgement of an event that is not in the table of handlers."""
    return refusal(UnknownEvent.code, f"there is no event {str(name)[:64]!r}")


def hang_up(server: socketio.AsyncServer, sid: str) -> None:
    """Let the transport of a session that is over end, once what waits for it was sent.

    python-socketio ends the session alone: a WebSocket would stay open for as long as its peer
    likes, and a long poll unanswered until Engine.IO's ping times out.
    """
    eio_sid = server.manager.eio_sid_from_sid(sid, NAMESPACE)
    transport = server.eio.sockets.get(eio_sid)
    if transport is not None:
        transport.queue.put_nowait(None)


async def answered(event: str, handle: Callable[[], Awaitable[Answer]]) -> Answer:
    """What `handle` answers, or the refusal that its error stands for."""
    try:
        return await handle()
    except ControllerError as exc:
        return refusal(exc.code, exc.message)
    except Exception:
        log.exception("an event failed", event_name=event)
        return refusal("internal_error", "this is a bug: the controller's log has the details")


def handler_of(table: Mapping[str, H], event: object) -> H:
    """The handler in `table`; names come from the network and are looked up nowhere else."""
    handler = table.get(event) if isinstance(event, str) else None
    if handler is None:
        raise UnknownEvent(f"there is no event {str(event)[:64]!r}")
    return handler


def _sentence(exc: ValidationError) -> str:
    first = exc.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "payload"
    return f"{where}: {first['msg']}"
