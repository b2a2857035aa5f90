"""Every chunk of a command's output once and in order, over as many connections as it takes."""

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from ogent.client.api import Api, may_pass, segment
from ogent.client.backoff import Backoff
from ogent.client.errors import ConnectionFailed, OgentError, OutputGap, ProtocolError
from ogent.client.server_sent_events import ServerSentEvent, ServerSentEventParser
from ogent.client.transport import HttpRequest
from ogent.protocol.messages import ClientProgress, ClientResult, ClientState
from ogent.protocol.names import StreamEvent
from ogent.protocol.resources import Finished
from ogent.protocol.states import State, Stream

#: The controller sends at least a comment every 15 s; a link that misses three is dead.
SILENCE_S: Final = 45.0
#: A connection that lasted this long was a good one, even if nothing was said on it.
_GOOD_AFTER_S: Final = 10.0

_STAGES: Final = {State.QUEUED: 1, State.DISPATCHED: 2}

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one stream, as bytes; `seq` counts 0, 1, 2… within the command.

    `offset` is the place of its first byte within its stream.
    """

    seq: int
    stream: Stream
    offset: int
    data: bytes
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class StateChange:
    """The command is now in `state`."""

    state: State
    timestamp: datetime


#: What following gives; a Finished comes once, and is the last.
Followed = Chunk | StateChange | Finished


class Following:
    """One reader's way through the events of one command.

    A broken connection is resumed from the first chunk that was not given yet; repeated events
    are dropped. `on_interruption` is told of every break before it is resumed.
    """

    def __init__(
        self,
        api: Api,
        command_id: str,
        from_seq: int = 0,
        on_interruption: Callable[[OgentError], None] | None = None,
    ) -> None:
        self._api = api
        self._command_id = command_id
        self._next_seq = from_seq
        self._on_interruption = on_interruption
        self._told: State | None = None
        self._gap_at: int | None = None

    async def events(self) -> AsyncGenerator[Followed, None]:
        """Chunks and states as they come, then the result; see Client.follow for the errors."""
        backoff = Backoff(self._api.resume_for_s)
        while True:
            opened_at = time.monotonic()
            try:
                async with aclosing(self._connection()) as events:
                    async for event in events:
                        backoff.reset()
                        yield event
                        if isinstance(event, Finished):
                            return
                raise ConnectionFailed(
                    self._api.transport.url, "the stream ended early", nothing_sent=False
                )
            except OgentError as exc:
                if time.monotonic() - opened_at >= _GOOD_AFTER_S:
                    backoff.reset()
                await self._recover(exc, backoff)

    async def _recover(self, error: OgentError, backoff: Backoff) -> None:
        """Wait until it is worth another connection; raise `error` where it is not."""
        gap_again = isinstance(error, OutputGap) and self._gap_at == error.expected
        if gap_again or not (may_pass(error) or isinstance(error, OutputGap)):
            raise error
        if isinstance(error, OutputGap):
            self._gap_at = error.expected
        delay_s = backoff.next_delay_s()
        if delay_s is None:
            raise error
        if self._on_interruption is not None:
            self._on_interruption(error)
        await asyncio.sleep(delay_s)

    async def _connection(self) -> AsyncGenerator[Followed, None]:
        """What one connection brings that is new."""
        parser = ServerSentEventParser()
        async with self._api.stream(self._request(), silence_s=SILENCE_S) as stream:
            async for piece in stream.pieces:
                for raw in parser.feed(piece):
                    event = self._accept(raw)
                    if event is not None:
                        yield event

    def _request(self) -> HttpRequest:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._next_seq > 0:
            headers["Last-Event-ID"] = str(self._next_seq - 1)
        path = f"/commands/{segment(self._command_id)}/events"
        return HttpRequest("GET", path, headers=headers)

    def _accept(self, raw: ServerSentEvent) -> Followed | None:
        match raw.event:
            case StreamEvent.PROGRESS:
                return self._chunk(_parse(ClientProgress, raw))
            case StreamEvent.STATE:
                return self._change(_parse(ClientState, raw))
            case StreamEvent.RESULT:
                return _parse(ClientResult, raw)
        return None  # an event of a newer controller

    def _chunk(self, frame: ClientProgress) -> Chunk | None:
        if frame.seq < self._next_seq:
            return None
        if frame.seq > self._next_seq:
            raise OutputGap(self._command_id, self._next_seq, frame.seq)
        self._next_seq += 1
        return Chunk(frame.seq, frame.stream, frame.offset, _exact(frame), frame.timestamp)

    def _change(self, frame: ClientState) -> StateChange | None:
        # A new connection begins with the states of before; pauses and resumptions may repeat.
        if frame.state is self._told or _stage(frame.state) < _stage(self._told):
            return None
        self._told = frame.state
        return StateChange(frame.state, frame.timestamp)


def _stage(state: State | None) -> int:
    """How far a command in `state` has come; it never goes back, and pauses within a stage."""
    return 0 if state is None else _STAGES.get(state, len(_STAGES) + 1)


def _exact(frame: ClientProgress) -> bytes:
    if frame.data_base64 is None:
        return frame.data.encode()
    try:
        return base64.b64decode(frame.data_base64, validate=True)
    except binascii.Error as exc:
        raise ProtocolError(f"chunk {frame.seq} carries damaged base64") from exc


def _parse(model: type[_Model], raw: ServerSentEvent) -> _Model:
    try:
        return model.model_validate_json(raw.data)
    except ValidationError as exc:
        raise ProtocolError(f"a {raw.event} event is no {model.__name__}") from exc
