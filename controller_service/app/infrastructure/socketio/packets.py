"""Packets of Socket.IO, refused where they are not what the protocol has.

The library finds out late what is wrong with a packet, in a task of its own, where it becomes a
traceback in the log. Here each refusal is a ValueError at once.
"""

import json
from typing import Any, Final

import orjson
from engineio.packet import Packet as EnginePacket
from socketio import packet
from socketio.msgpack_packet import MsgPackPacket

_EVENTS: Final = (packet.EVENT, packet.ACK)
_BINARY: Final = (packet.BINARY_EVENT, packet.BINARY_ACK)


class OrjsonCodec:
    """orjson in the shape of the module `json`, as python-socketio wants it."""

    @staticmethod
    def dumps(value: Any, **_options: Any) -> str:
        """`value` as JSON text."""
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_options: Any) -> Any:
        """The value of JSON text; raises ValueError.

        Legal text that orjson refuses, such as half of a surrogate pair, is read nevertheless:
        whoever sent it is owed an answer.
        """
        try:
            return orjson.loads(text)
        except ValueError:
            return _read_slowly(text)


def _read_slowly(text: str | bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as exc:
        raise ValueError("the text is nested too deeply") from exc


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class StrictPacket(packet.Packet):  # type: ignore[misc]  # the library has no types
    """JSON packets. Attachments are refused: nothing here is sent as one."""

    def decode(self, encoded_packet: Any) -> int:
        """Read the packet; raises ValueError."""
        attachments: int = super().decode(encoded_packet)
        if self.packet_type in _BINARY:
            raise ValueError("there are no binary events here")
        _check(self)
        return attachments


class StrictMsgPackPacket(MsgPackPacket):  # type: ignore[misc]  # the library has no types
    """MessagePack packets."""

    def decode(self, encoded_packet: Any) -> None:
        """Read the packet; raises ValueError, or what msgpack raises."""
        super().decode(encoded_packet)
        if not isinstance(self.namespace, str) or not isinstance(self.id, int | None):
            raise ValueError("the envelope is not one of Socket.IO")
        _check(self)


class OneShotPacket(EnginePacket):  # type: ignore[misc]  # the library has no types
    """An Engine.IO packet that is encoded once and keeps nothing of it.

    The library's keeps its data and its encoded form for as long as the next one does not come.
    """

    @classmethod
    def of(cls, other: EnginePacket) -> "OneShotPacket":
        """The same packet."""
        return cls(other.packet_type, other.data)

    def encode(self, b64: bool = False) -> str | bytes:
        """The packet as it is sent; called once."""
        encoded: str | bytes = super().encode(b64)
        self.data = self.encode_cache = None
        return encoded


def _check(read: packet.Packet) -> None:
    if read.packet_type not in _EVENTS:
        return
    if not isinstance(read.data, list):
        raise ValueError("an event or an acknowledgement carries a list")
    # A number in place of a name is answered as an unknown event; the library looks names up in a
    # table, so lists and maps never come to that.
    if read.packet_type == packet.EVENT and (
        not read.data or isinstance(read.data[0], list | dict)
    ):
        raise ValueError("an event begins with its name")
