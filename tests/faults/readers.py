"""Those who watch a command, each by another door, and what they saw of it."""

import asyncio
import base64
from contextlib import suppress

import socketio

from ogent.client import Chunk, Client, Finished, OgentError, State
from tests.faults.promises import Piece, Reading
from tests.integration.controller.socket_client import Payload, SocketClient

READ_DEADLINE_S = 120.0
#: What the library raises where the peer closes before its first packet.
_CLOSED_EARLY = TypeError
LOOK_EVERY_S = 0.05  # a socket that is closed, or a controller that is back, wakes nobody here


async def follow_by_client(client: Client, command_id: str, reading: Reading) -> None:
    """The way of `ogent exec`: server-sent events, resumed by the client."""
    try:
        async with asyncio.timeout(READ_DEADLINE_S):
            async for event in client.follow(command_id):
                if isinstance(event, Chunk):
                    piece = Piece(event.seq, event.stream, event.offset, event.data)
                    reading.pieces.append(piece)
                elif isinstance(event, Finished):
                    reading.ends.append(event.state)
    except (OgentError, TimeoutError) as exc:
        reading.failure = repr(exc)


async def follow_by_socket(url: str, token: str, command_id: str, reading: Reading) -> None:
    """The way of a page: Socket.IO, subscribed again from its own next `seq` after every loss."""
    try:
        async with asyncio.timeout(READ_DEADLINE_S):
            while not reading.ends:
                with suppress(socketio.exceptions.SocketIOError, OSError, _CLOSED_EARLY):
                    await _subscription(url, token, command_id, reading)
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError as exc:
        reading.failure = repr(exc)


async def _subscription(url: str, token: str, command_id: str, reading: Reading) -> None:
    """One connection: all that it brought is in `reading` when it is over."""
    socket = SocketClient()
    try:
        await socket.connect(url, token)
        wanted = {"command_id": command_id, "from_seq": len(reading.pieces)}
        await socket.ok("subscribe_command", wanted)
        while not socket.closed.is_set() and not socket.all("command_result"):
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await socket.disconnect()
        if socket.socket.eio.http is not None:  # the library leaves it open when it is refused
            await socket.socket.eio.http.close()
        reading.pieces += [_piece(payload) for payload in socket.all("command_progress")]
        reading.ends += [State(payload["state"]) for payload in socket.all("command_result")]


def _piece(payload: Payload) -> Piece:
    exact = payload.get("data_base64")
    data = payload["data"].encode() if exact is None else base64.b64decode(exact)
    return Piece(payload["seq"], payload["stream"], payload["offset"], data)
