"""The newest epoch that each agent acknowledged from its disk: what is older there is a copy."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Nothing is known of earlier acknowledgements: no agent counts as an older copy."""
    confirmed: sa.Column[int] = sa.Column(
        "confirmed_epoch", sa.BigInteger(), nullable=False, server_default=sa.text("0")
    )
    op.add_column("agents", confirmed)


def downgrade() -> None:
    """Undo."""
    op.execute("ALTER TABLE agents DROP COLUMN confirmed_epoch")
