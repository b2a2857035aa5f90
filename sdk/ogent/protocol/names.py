"""Names of paths and events, each spelled once."""

from enum import StrEnum
from typing import Final

#: Engine.IO path of the clients' door (JSON).
CLIENT_SOCKET_PATH: Final = "/socket.io"
#: Engine.IO path of the agents' door (MessagePack).
AGENT_SOCKET_PATH: Final = "/agent/socket.io"
#: The only Socket.IO namespace of either door.
NAMESPACE: Final = "/"


class ClientEvent(StrEnum):
    """What a client may send on its door."""

    EXECUTE_COMMAND = "execute_command"
    EXECUTE_COMMAND_REQUEST = "execute_command_request"
    SUBSCRIBE_COMMAND = "subscribe_command"
    UNSUBSCRIBE_COMMAND = "unsubscribe_command"
    CONTROL_COMMAND = "control_command"
    SUBSCRIBE_AGENTS = "subscribe_agents"
    AUTHENTICATE = "authenticate"


class ControllerEvent(StrEnum):
    """What the controller sends to clients."""

    CONNECTION_RESPONSE = "connection_response"
    AGENT_CONNECTED = "agent_connected"
    AGENT_DISCONNECTED = "agent_disconnected"
    AGENT_STATUS = "agent_status"
    COMMAND_RESPONSE = "command_response"
    COMMAND_PROGRESS = "command_progress"
    COMMAND_STATE = "command_state"
    COMMAND_RESULT = "command_result"


class AgentEvent(StrEnum):
    """What an agent sends to the controller on the agents' door."""

    REGISTER = "register"
    AGENT_INFO = "agent_info"
    COMMAND_STATE = "command_state"
    COMMAND_PROGRESS = "command_progress"
    COMMAND_RESULT = "command_result"


class OrderEvent(StrEnum):
    """What the controller sends to an agent on the agents' door."""

    REGISTRATION_RESPONSE = "registration_response"
    EXECUTE_COMMAND = "execute_command"
    CONTROL_COMMAND = "control_command"
    PROGRESS_ACK = "progress_ack"
    SUPERSEDED = "superseded"


class OrderRefusal(StrEnum):
    """Codes with which an agent refuses an order and that mean something to the controller."""

    DRAINING = "draining"
    AGENT_BUSY = "agent_busy"
    EXPIRED = "expired"
    UNKNOWN_COMMAND = "unknown_command"


#: The agent is stopping, or holds as many orders as it may: the order is offered again later.
NOT_NOW: Final = frozenset({OrderRefusal.DRAINING, OrderRefusal.AGENT_BUSY})


class StreamEvent(StrEnum):
    """Event names of `GET /commands/{command_id}/events`."""

    PROGRESS = "progress"
    STATE = "state"
    RESULT = "result"
