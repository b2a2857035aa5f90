"""What deleting in batches needs: finished commands by their end, and a mark for hidden ones."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FINISHED = sa.text("finished_at IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    hidden: sa.Column[bool] = sa.Column(
        "is_removed", sa.Boolean(), nullable=False, server_default=sa.false()
    )
    op.add_column("commands", hidden)
    op.create_index(
        "commands_finished",
        "commands",
        ["finished_at"],
        sqlite_where=FINISHED,
        postgresql_where=FINISHED,
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_idempotency_keys_created_at")
    op.drop_index("commands_finished")
    op.execute("DELETE FROM commands WHERE is_removed")
    op.execute("ALTER TABLE commands DROP COLUMN is_removed")
