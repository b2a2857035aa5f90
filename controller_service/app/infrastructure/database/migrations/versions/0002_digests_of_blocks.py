"""Digests of full blocks of output; made here for commands that have not ended."""

import hashlib
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BLOCK_BYTES = 1024 * 1024


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "digest_blocks",
        sa.Column("command_id", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["command_id"], ["commands.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("command_id", "stream", "number"),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    unfinished = connection.execute(
        sa.text(
            "SELECT id FROM commands WHERE state IN ('queued', 'dispatched', 'running', 'paused')"
        )
    ).scalars()
    for command_id in unfinished.all():
        for stream in (1, 2):
            for number, digest in enumerate(_full_blocks(connection, command_id, stream)):
                connection.execute(
                    sa.text("INSERT INTO digest_blocks VALUES (:c, :s, :n, :d)"),
                    {"c": command_id, "s": stream, "n": number, "d": digest},
                )


def _full_blocks(connection: sa.Connection, command_id: str, stream: int) -> Iterator[bytes]:
    rows = connection.execute(
        sa.text(
            "SELECT data FROM chunks WHERE command_id = :command AND stream = :stream ORDER BY seq"
        ),
        {"command": command_id, "stream": stream},
    )
    rest = b""
    for row in rows:
        rest += row.data
        while len(rest) >= BLOCK_BYTES:
            yield hashlib.sha256(rest[:BLOCK_BYTES]).digest()
            rest = rest[BLOCK_BYTES:]


def downgrade() -> None:
    """Undo."""
    op.drop_table("digest_blocks")
