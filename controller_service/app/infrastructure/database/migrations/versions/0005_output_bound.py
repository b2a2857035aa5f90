"""The bound of each command's output, as its order says it, and how often that was not kept."""

import msgpack
import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. What has ended takes no more output: its bound stays the default."""
    bound: sa.Column[int] = sa.Column(
        "max_output_bytes", sa.BigInteger(), nullable=False, server_default=sa.text("1073741824")
    )
    overruns: sa.Column[int] = sa.Column(
        "overruns", sa.Integer(), nullable=False, server_default=sa.text("0")
    )
    op.add_column("commands", bound)
    op.add_column("commands", overruns)
    connection = op.get_bind()
    orders = connection.execute(
        sa.text(
            'SELECT command_id, "order" FROM run_orders JOIN commands ON commands.id = command_id '
            "WHERE state IN ('queued', 'dispatched', 'running', 'paused')"
        )
    )
    for command_id, order in orders.all():
        connection.execute(
            sa.text("UPDATE commands SET max_output_bytes = :bound WHERE id = :command"),
            {"bound": _bound(order), "command": command_id},
        )


def _bound(order: bytes) -> int:
    return int(msgpack.unpackb(order)["max_output_bytes"])


def downgrade() -> None:
    """Undo."""
    op.execute("ALTER TABLE commands DROP COLUMN overruns")
    op.execute("ALTER TABLE commands DROP COLUMN max_output_bytes")
