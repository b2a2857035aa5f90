"""Tables. Times are microseconds since 1970 in UTC; words are stored as they are spelled."""

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

METADATA: Final = MetaData()

USERS: Final = Table(
    "users",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("selector", Text),
    Column("is_disabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

TOKENS: Final = Table(
    "tokens",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("owner", ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("selector", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
)

AGENTS: Final = Table(
    "agents",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("confirmed_epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("sid", String(64)),
    Column("connected_at", BigInteger),
    Column("last_seen_at", BigInteger),
    Column("labels", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
)

#: States that are not final: the few rows that the controller looks at all the time.
UNFINISHED_SQL: Final = text("state IN ('queued', 'dispatched', 'running', 'paused')")
SETTLED_SQL: Final = text("settled_at IS NOT NULL")

#: `is_removed`: its output is being deleted, and nobody finds it any more.
COMMANDS: Final = Table(
    "commands",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("agent_id", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("execution_target", String(80), nullable=False),
    Column("requester", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("timeout_s", Float),
    Column("state", String(16), nullable=False),
    Column("moved_at", BigInteger),
    Column("offered_epoch", BigInteger),
    Column("dispatched_at", BigInteger),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("execution_type", String(16)),
    Column("target", Text),
    Column("exit_code", Integer),
    Column("signal", String(32)),
    Column("failure", JSON(none_as_null=True)),
    Column("stop_failure", JSON(none_as_null=True)),
    Column("requested_action", String(16)),
    Column("next_seq", BigInteger, nullable=False),
    Column("stdout_bytes", BigInteger, nullable=False),
    Column("stderr_bytes", BigInteger, nullable=False),
    Column("lines_ended", BigInteger, nullable=False),
    Column("stdout_rest", Integer, nullable=False),
    Column("stderr_rest", Integer, nullable=False),
    Column("stdout_written", BigInteger),
    Column("stderr_written", BigInteger),
    Column("missing", JSON(none_as_null=True)),
    Column("max_output_bytes", BigInteger, nullable=False, server_default=text("1073741824")),
    Column("overruns", Integer, nullable=False, server_default=text("0")),
    Column("settled_at", BigInteger),
    Column("is_removed", Boolean, nullable=False, server_default=false()),
    Index("commands_by_agent", "agent_id", "id"),
    Index(
        "commands_unfinished",
        "agent_id",
        "state",
        "id",
        sqlite_where=UNFINISHED_SQL,
        postgresql_where=UNFINISHED_SQL,
    ),
    Index(
        "commands_settled",
        "settled_at",
        sqlite_where=SETTLED_SQL,
        postgresql_where=SETTLED_SQL,
    ),
)

#: The sealed run order of each command, apart from its row so that the row stays small.
RUN_ORDERS: Final = Table(
    "run_orders",
    METADATA,
    Column("command_id", ForeignKey("commands.id", ondelete="CASCADE"), primary_key=True),
    Column("order", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", String(64), nullable=False),
)

#: Control orders that their agents have not acknowledged.
CONTROL_ORDERS: Final = Table(
    "control_orders",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("command_id", ForeignKey("commands.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("agent_id", String(64), nullable=False, index=True),
    Column("order", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", String(64), nullable=False),
)

#: Output. A row id and a separate key: rows of 256 KiB do not belong into an index tree.
CHUNKS: Final = Table(
    "chunks",
    METADATA,
    Column("rowid_", Integer, primary_key=True, autoincrement=True),
    Column("command_id", ForeignKey("commands.id", ondelete="CASCADE"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("stream", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("command_id", "seq", name="chunks_by_seq"),
    UniqueConstraint("command_id", "stream", "offset", name="chunks_by_offset"),
)

#: Places in long output from which lines can be read; about one per MiB.
LINE_MARKS: Final = Table(
    "line_marks",
    METADATA,
    Column("command_id", ForeignKey("commands.id", ondelete="CASCADE"), primary_key=True),
    Column("next_seq", BigInteger, primary_key=True),
    Column("lines_ended", BigInteger, nullable=False),
    Column("stdout_bytes", BigInteger, nullable=False),
    Column("stderr_bytes", BigInteger, nullable=False),
    Column("stdout_rest", Integer, nullable=False),
    Column("stderr_rest", Integer, nullable=False),
)

#: Digests of full blocks of output: with them, a digest goes on after a restart.
DIGEST_BLOCKS: Final = Table(
    "digest_blocks",
    METADATA,
    Column("command_id", ForeignKey("commands.id", ondelete="CASCADE"), primary_key=True),
    Column("stream", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

IDEMPOTENCY_KEYS: Final = Table(
    "idempotency_keys",
    METADATA,
    Column("requester", String(64), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("command_id", String(32), nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
)
