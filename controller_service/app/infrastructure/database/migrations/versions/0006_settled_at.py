"""When a command became final by the controller's own clock: retention goes by it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FINISHED = sa.text("finished_at IS NOT NULL")
SETTLED = sa.text("settled_at IS NOT NULL")


def upgrade() -> None:
    """Apply. What has ended goes on by the time that was kept: no better one is known."""
    settled: sa.Column[int] = sa.Column("settled_at", sa.BigInteger(), nullable=True)
    op.add_column("commands", settled)
    op.execute("UPDATE commands SET settled_at = finished_at")
    op.drop_index("commands_finished")
    op.create_index(
        "commands_settled",
        "commands",
        ["settled_at"],
        sqlite_where=SETTLED,
        postgresql_where=SETTLED,
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("commands_settled")
    op.create_index(
        "commands_finished",
        "commands",
        ["finished_at"],
        sqlite_where=FINISHED,
        postgresql_where=FINISHED,
    )
    op.execute("ALTER TABLE commands DROP COLUMN settled_at")
