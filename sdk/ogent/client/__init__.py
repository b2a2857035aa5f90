"""An asynchronous Python client for an Ogent controller.

    async with Client("http://127.0.0.1:8001", username="admin", password=…) as client:
        done = await client.execute("web-1", "uptime")

`Client` is the door; `Chunk`, `StateChange` and `Finished` are what following gives; every error
is an `OgentError`. `ogent.client.testing` has an in-memory controller for tests of programs.
"""

from ogent.client.client import Client
from ogent.client.errors import ApiError, ConnectionFailed, OgentError, ProtocolError
from ogent.client.following import Chunk, Followed, StateChange
from ogent.protocol.resources import Command, Finished, Unfinished
from ogent.protocol.states import Action, Role, State, Stream

__all__ = [
    "Action",
    "ApiError",
    "Chunk",
    "Client",
    "Command",
    "ConnectionFailed",
    "Finished",
    "Followed",
    "OgentError",
    "ProtocolError",
    "Role",
    "State",
    "StateChange",
    "Stream",
    "Unfinished",
]
