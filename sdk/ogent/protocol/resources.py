"""What REST requests carry and answers hold; Socket.IO events reuse the same shapes.

Requests refuse unknown fields; readers of answers ignore them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ogent.protocol import limits
from ogent.protocol.codec import Timestamp
from ogent.protocol.states import Action, Role, State, Status, Stream

AgentId = Annotated[str, Field(pattern=limits.AGENT_ID_PATTERN)]
UserNameText = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
]
PasswordText = Annotated[str, Field(min_length=12, max_length=1024)]
SelectorText = Annotated[str, Field(max_length=limits.SELECTOR_MAX_CHARS)]
#: One fact about a host.
FactText = Annotated[str, Field(max_length=512)]
#: Names and values as label selectors can speak of them.
LabelName = Annotated[
    str, Field(max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")
]
LabelValue = Annotated[
    str,
    Field(
        max_length=limits.LABEL_MAX_CHARS, pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$"
    ),
]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=limits.LABELS_MAX)]
#: `auto`, `local`, `ssh` or `ssh:NAME`.
TargetText = Annotated[str, Field(pattern=r"^(auto|local|ssh(:[A-Za-z0-9][A-Za-z0-9._-]{0,63})?)$")]


class Request(BaseModel):
    """A body that somebody sends to the controller: frozen, and exactly these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Answer(BaseModel):
    """A body that the controller sends: frozen; a reader ignores what it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# --- sign-in, tokens, users ------------------------------------------------------------------


class AccessToken(Answer):
    """Answer of `POST /token`; `expires_in` in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the scheme, not a secret
    expires_in: float


class NewToken(Request):
    """`POST /tokens`: a named token for a program, never above its owner's rights."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: Role | None = None
    selector: SelectorText | None = None
    expires_in: Annotated[float, Field(gt=0, le=10 * 366 * 86400)] | None = None


class TokenInfo(Answer):
    """A named token as `GET /tokens` lists it; the token itself is never shown again."""

    token_id: str
    name: str
    role: Role
    selector: str | None
    created_at: Timestamp
    expires_at: Timestamp | None


class CreatedToken(TokenInfo):
    """Answer of `POST /tokens`: the only time that `token` is shown."""

    token: str


class Me(Answer):
    """Who the bearer of a token is, and what it may do."""

    username: str
    role: Role
    selector: str | None


class NewPassword(Request):
    """`POST /me/password`."""

    current_password: Annotated[str, Field(max_length=1024)]
    new_password: PasswordText


class NewUser(Request):
    """`POST /users`."""

    username: UserNameText
    password: PasswordText
    role: Role
    selector: SelectorText | None = None


class User(Answer):
    """An account; `selector` limits it to agents whose labels match."""

    username: str
    role: Role
    selector: str | None
    disabled: bool


# --- agents ------------------------------------------------------------------------------------


class SshTarget(Answer):
    """A host that an agent reaches by SSH, as it names it."""

    name: FactText
    target: FactText
    labels: Labels = {}


class AgentInfo(Answer):
    """What an agent says of itself and its host. Text from an agent is never trusted."""

    platform: FactText
    version: FactText
    python: FactText
    hostname: FactText
    agent_version: FactText
    executors: Annotated[list[Literal["local", "ssh"]], Field(max_length=8)]
    ssh_enabled: bool = False
    ssh_target: FactText | None = None
    ssh_targets: Annotated[list[SshTarget], Field(max_length=1024)] = []


class Agent(Answer):
    """A machine that runs commands; `running` counts its unfinished commands."""

    agent_id: str
    sid: str | None
    status: Literal["online", "offline"]
    connected_at: Timestamp | None
    last_seen_at: Timestamp | None
    labels: dict[str, str]
    running: int
    agent_info: AgentInfo


# --- commands ----------------------------------------------------------------------------------


class ExecuteRequest(Request):
    """Run `command` on an agent; see "Execute" in docs/http-api.md for each field."""

    command: str
    execution_target: TargetText = "auto"
    use_ai: bool = False
    system: Annotated[str, Field(max_length=256)] = "Linux"
    context: Annotated[str, Field(max_length=4096)] = "Server administration"
    timeout: Annotated[float, Field(gt=0)] | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    stdin: str | None = None
    wait: Annotated[float, Field(ge=0, le=limits.WAIT_MAX_S)] = limits.WAIT_DEFAULT_S
    queue: bool = False
    expires_in: Annotated[float, Field(gt=0, le=limits.EXPIRES_MAX_S)] | None = None


class ControlRequest(Request):
    """`POST /commands/{command_id}/control`."""

    action: Action


class CommandError(Answer):
    """Why a command failed, was lost or was rejected."""

    code: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=8192)]


class StopError(CommandError):
    """Why a stop could not be completed, and the processes that are left."""

    pids: Annotated[list[int], Field(max_length=1024)] = []


class Command(Answer):
    """One command line for one agent, and where it stands. `duration` and `timeout` in seconds.

    `*_bytes` count what was written (while it runs: what has arrived), `*_stored` what is kept of
    it; `truncated` says that they differ.
    """

    command_id: str
    agent_id: str
    command: str
    processed_command: str | None = None
    execution_target: str
    execution_type: Literal["local", "ssh"] | None = None
    target: str | None = None
    state: State
    status: Status
    requester: str
    created_at: Timestamp
    dispatched_at: Timestamp | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    timeout: float | None = None
    exit_code: int | None = None
    signal: str | None = None
    error: CommandError | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout_stored: int | None = None
    stderr_stored: int | None = None
    truncated: bool = False
    output_complete: bool = True
    duration: float | None = None
    requested_action: Action | None = None
    stop_error: StopError | None = None
    ai_processing: dict[str, object] | None = None


class CommandPage(Answer):
    """A page of `GET /commands`, newest first; `next_cursor` is None on the last."""

    items: list[Command]
    next_cursor: str | None


class Result(Answer):
    """How a command ended; `stdout` and `stderr` are the last 1 MiB of each as text."""

    command: str
    exit_code: int | None
    signal: str | None
    stdout: str
    stderr: str
    timestamp: Timestamp
    execution_type: Literal["local", "ssh"] | None
    target: str | None
    duration: float | None
    stdout_bytes: int
    stderr_bytes: int
    stdout_stored: int | None = None
    stderr_stored: int | None = None
    truncated: bool


class Finished(Answer):
    """Answer of execute when the command ended within `wait`."""

    status: Literal["success", "error"]
    state: State
    command_id: str
    command: str
    result: Result
    error: CommandError | None = None
    ai_processing: dict[str, object] | None = None


class Unfinished(Answer):
    """Answer of execute when the command goes on."""

    status: Literal["running", "queued"]
    state: State
    command_id: str
    command: str


class OutputLine(Answer):
    """A line of a command's output; `number` counts from 0 over both streams as they ended."""

    number: int
    stream: Stream
    text: str
    timestamp: Timestamp
    truncated: bool = False


class MissingOutput(Answer):
    """Bytes of a stream that were written and are not stored."""

    stream: Stream
    offset: int
    length: int


class OutputPage(Answer):
    """Answer of `GET /commands/{command_id}/output`."""

    command_id: str
    stream: Literal["stdout", "stderr", "both"]
    lines: list[OutputLine]
    total_lines: int
    matched_lines: int
    next_offset: int | None
    complete: bool
    missing: list[MissingOutput] = []


class Health(Answer):
    """Answer of `/health` and `/ready`."""

    status: str
