"""Alembic's way in. The ledger passes its open connection: migrations never look for a database of their
own."""

from __future__ import annotations

from alembic import context

from holdfast_factory.line.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
