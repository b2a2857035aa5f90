"""Frames of the two Socket.IO doors.

Frames from agents are read with unknown fields ignored, so that a newer agent may speak to an
older controller; frames from clients refuse them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ogent.protocol import limits
from ogent.protocol.codec import Timestamp
from ogent.protocol.resources import (
    Agent,
    AgentId,
    AgentInfo,
    CommandError,
    ExecuteRequest,
    FactText,
    Finished,
    Labels,
    MissingOutput,
    Request,
    SelectorText,
    StopError,
    TargetText,
)
from ogent.protocol.states import Action, State, Stream

CommandIdText = Annotated[str, Field(min_length=1, max_length=64)]
#: Every database holds it as an integer of 64 bits.
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Frame(BaseModel):
    """A message between controller and agent, or from the controller to a client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# --- clients' door: client → controller -------------------------------------------------------


class ClientExecute(ExecuteRequest):
    """`execute_command`: the execute request, for a named agent. `wait` has no effect here."""

    agent_id: AgentId
    idempotency_key: Annotated[str, Field(max_length=limits.IDEMPOTENCY_KEY_MAX_CHARS)] | None = (
        None
    )


class ClientSubscribe(Request):
    """`subscribe_command`: every chunk with `seq >= from_seq`, then the result."""

    command_id: CommandIdText
    from_seq: Count = 0


class ClientUnsubscribe(Request):
    """`unsubscribe_command`."""

    command_id: CommandIdText


class ClientControl(Request):
    """`control_command`."""

    command_id: CommandIdText
    action: Action


class ClientSubscribeAgents(Request):
    """`subscribe_agents`: all that the user may see, or those named or selected."""

    agent_ids: list[AgentId] | None = None
    selector: SelectorText | None = None


class ClientAuthenticate(Request):
    """`authenticate`: a fresh token for the socket."""

    token: Annotated[str, Field(max_length=8192)]


# --- clients' door: controller → client -------------------------------------------------------


class ConnectionResponse(Frame):
    """`connection_response`."""

    status: Literal["connected"] = "connected"
    sid: str
    server_version: str


class CommandAccepted(Frame):
    """`command_response`."""

    status: Literal["accepted"] = "accepted"
    command_id: str
    agent_id: str
    command: str
    state: State


class ClientProgress(Frame):
    """`command_progress` to a client: one chunk.

    `data` is the chunk as text, undecodable bytes replaced; `data_base64` holds the exact bytes
    whenever `data` does not. `offset` is the chunk's first byte within its stream.
    """

    command_id: str
    agent_id: str
    seq: int
    status: Literal["running"] = "running"
    stream: Stream
    data: str
    data_base64: str | None = None
    offset: int
    timestamp: Timestamp


class ClientState(Frame):
    """`command_state` to a client."""

    command_id: str
    agent_id: str
    state: State
    timestamp: Timestamp


class ClientResult(Finished):
    """`command_result` to a client: the execute response's 200 body and whose it is."""

    agent_id: str
    timestamp: Timestamp


class AgentStatus(Frame):
    """`agent_status`: the whole list once, then what changed; `version` counts up."""

    kind: Literal["full", "delta"]
    version: int
    agents: list[Agent]


# --- agents' door -----------------------------------------------------------------------------


class AgentAuth(Frame):
    """`auth` of an agent's CONNECT; `instance_id` is random per process."""

    instance_id: Annotated[str, Field(min_length=1, max_length=64)]
    boot_id: Annotated[str, Field(max_length=64)] = ""
    protocol: int


class HeldCommand(Frame):
    """A command that the agent holds as unfinished; `next_seq` is the next chunk it would send."""

    command_id: CommandIdText
    state: State
    next_seq: Count


class Register(Frame):
    """`register`: opens the agent's session."""

    agent_id: AgentId
    agent_info: AgentInfo
    labels: Labels = {}
    last_epoch: Count = 0
    resume: list[HeldCommand] = []


class ResumePoint(Frame):
    """From where the agent sends a command again: what is durably stored of it here.

    `drop` is true for what is final or unknown here: the agent forgets it.
    """

    command_id: str
    next_seq: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    drop: bool = False


class RegistrationResponse(Frame):
    """`registration_response`: acknowledged once `epoch` is on the agent's disk."""

    status: Literal["success"] = "success"
    agent_id: str
    epoch: int
    server_time: Timestamp
    dispatch_keys: list[str] = []
    resume: list[ResumePoint] = []


class SignedOrder(Frame):
    """`execute_command` and `control_command` to an agent.

    `order` is MessagePack and is never encoded anew, so that its signature holds.
    """

    order: bytes
    signature: bytes
    key_id: str


class RunOrder(Frame):
    """What the agent is told to run; times by the controller's clock."""

    v: Literal[1] = 1
    kind: Literal["run"] = "run"
    command_id: CommandIdText
    agent_id: AgentId
    command: str
    execution_target: TargetText
    timeout: float | None
    env: dict[str, str]
    cwd: str | None
    stdin: str | None
    max_output_bytes: int
    requester: str
    issued_at: Timestamp
    expires_at: Timestamp


class ControlOrder(Frame):
    """What the agent is told to do with a command that it holds; a repeat changes nothing."""

    v: Literal[1] = 1
    kind: Literal["control"] = "control"
    control_id: str
    command_id: CommandIdText
    agent_id: AgentId
    action: Action
    requester: str
    issued_at: Timestamp
    expires_at: Timestamp


class OrderAck(Frame):
    """The agent's acknowledgement of an order: it is in its journal; its state there.

    `ok` is false where the agent refuses the order; `error` says why, and nothing ran. With a code
    of NOT_NOW it may take the same order later. `held` is false where the agent knows the id and
    holds nothing of the command any more: everything of it was acknowledged once, and is gone.
    """

    ok: bool
    command_id: str
    state: State | None = None
    error: CommandError | None = None
    held: bool = True


class AgentCommandState(Frame):
    """`command_state` from an agent, acknowledged by FrameAck."""

    command_id: CommandIdText
    state: State
    timestamp: Timestamp
    started_at: Timestamp | None = None
    execution_type: Literal["local", "ssh"] | None = None
    target: FactText | None = None
    stop_error: StopError | None = None


class AgentProgress(Frame):
    """`command_progress` from an agent; never acknowledged singly, see ProgressAck."""

    command_id: CommandIdText
    seq: Count
    stream: Stream
    offset: Count
    data: Annotated[bytes, Field(min_length=1, max_length=limits.CHUNK_MAX_BYTES)]
    timestamp: Timestamp


class ProgressAck(Frame):
    """`progress_ack`: cumulative, what of the command is durably stored."""

    command_id: str
    next_seq: int
    stdout_bytes: int
    stderr_bytes: int


class AgentResult(Frame):
    """`command_result` from an agent, acknowledged by ResultAck once it is stored.

    `*_bytes` count what the process wrote; `*_stored` and the digests cover what was sent. A digest
    is SHA-256, in hexadecimal, over the SHA-256 digests of the stream's consecutive blocks of
    DIGEST_BLOCK_BYTES. An empty one is taken only of a stream that is empty, or of which `missing`
    names a part.
    """

    command_id: CommandIdText
    state: State
    next_seq: Count
    exit_code: Annotated[int, Field(ge=-(2**31), lt=2**32)] | None = None
    signal: Annotated[str, Field(pattern=r"^SIG[A-Z0-9+]{1,16}$")] | None = None
    stdout_bytes: Count = 0
    stderr_bytes: Count = 0
    stdout_stored: Count = 0
    stderr_stored: Count = 0
    stdout_digest: Annotated[str, Field(max_length=64)] = ""
    stderr_digest: Annotated[str, Field(max_length=64)] = ""
    missing: Annotated[list[MissingOutput], Field(max_length=1024)] = []
    started_at: Timestamp | None = None
    finished_at: Timestamp
    execution_type: Literal["local", "ssh"] | None = None
    target: FactText | None = None
    error: CommandError | None = None
    stop_error: StopError | None = None


class FrameAck(Frame):
    """Acknowledges a `command_state` or an `agent_info`: it is stored, or why it never will be."""

    ok: bool
    error: CommandError | None = None


class ResultAck(FrameAck):
    """Acknowledges a `command_result`.

    With `ok` false and `error.code` `incomplete` or `digest_mismatch` the counts say what is
    stored, and the agent sends again from there. `command_not_found`, `validation_error` and
    `unknown_event` are final; after any other code it sends the result again later.
    """

    next_seq: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
