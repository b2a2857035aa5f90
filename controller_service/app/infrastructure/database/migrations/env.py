"""Alembic's entry: runs migrations over the connection that the controller gives."""

from alembic import context

from app.infrastructure.database.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
