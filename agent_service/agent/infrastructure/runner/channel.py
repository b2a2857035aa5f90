"""Frames over the runner's Unix socket: a length of four bytes, then JSON.

Part of the runner: nothing here but what Python itself starts with.
"""

from __future__ import annotations

import socket
import struct

from agent.infrastructure.runner.records import FRAME_MAX_BYTES, from_json, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

#: The version of what is said here: a runner may be older or newer than the agent.
PROTOCOL: Final = 1
LENGTH: Final = struct.Struct("<I")
#: The exit status of a runner that finds another one in its folder.
EXIT_HELD: Final = 4
#: Bytes that are handed to the socket before more is asked for; beyond it nothing is read.
OUT_MAX_BYTES: Final = 1024 * 1024
_READ_BYTES: Final = 64 * 1024
_PEER: Final = struct.Struct("3i")

Facts = dict[str, "Any"]


class ChannelBroken(Exception):
    """The peer is gone, or says what is not understood."""


def packed(facts: Facts) -> bytes:
    """A frame as it goes over the socket."""
    payload = to_json(facts)
    return LENGTH.pack(len(payload)) + payload


def peer_uid(connection: socket.socket) -> int:
    """The account at the other end."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(raw)[1])


class Channel:
    """One connection, never waited for.

    What is to be sent waits under a key, and a newer frame takes the place of one of its key that
    was not handed to the socket yet: however long a peer stands still, it costs one frame a key.
    """

    def __init__(self, connection: socket.socket, want_to_write: Callable[[bool], None]) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.is_agent = False
        self._want_to_write = want_to_write
        self._in = bytearray()
        self._out = bytearray()
        self._waiting: dict[tuple[str, str], Facts] = {}

    @property
    def is_behind(self) -> bool:
        """Whether its peer does not take what it is told: nothing more is read from it then."""
        return len(self._out) >= OUT_MAX_BYTES

    def send(self, facts: Facts) -> None:
        """Have `facts` sent as soon as the peer takes them."""
        self.put(facts)
        self.write()

    def put(self, facts: Facts) -> None:
        """Have `facts` sent with the next `write`."""
        self._waiting[(facts["is"], facts.get("id", ""))] = facts

    def write(self) -> None:
        """Hand over as much as the socket takes; raises ChannelBroken."""
        while True:
            while self._waiting and len(self._out) < OUT_MAX_BYTES:
                self._out += packed(self._waiting.pop(next(iter(self._waiting))))
            if not self._out:
                self._want_to_write(False)
                return
            try:
                sent = self.socket.send(self._out)
            except (BlockingIOError, InterruptedError):
                self._want_to_write(True)
                return
            except OSError as exc:
                raise ChannelBroken(str(exc)) from exc
            del self._out[:sent]

    def read(self) -> list[Facts]:
        """The frames that have come whole; raises ChannelBroken, also at the peer's end."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as exc:
            raise ChannelBroken(str(exc)) from exc
        if not data:
            raise ChannelBroken("the peer has closed")
        self._in += data
        frames: list[Facts] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Facts | None:
        if len(self._in) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._in)
        if length > FRAME_MAX_BYTES:
            raise ChannelBroken("a frame is too long")
        end = LENGTH.size + length
        if len(self._in) < end:
            return None
        payload = bytes(self._in[LENGTH.size : end])
        del self._in[:end]
        try:
            return from_json(payload)
        except ValueError as exc:
            raise ChannelBroken("a frame is no JSON object") from exc
