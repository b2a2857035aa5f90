"""Commands in SQL. The functions below run inside a transaction, the methods outside of one."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Insert,
    Integer,
    Select,
    Update,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from app import wire
from app.application.ports.repositories import CommandFilter, IdempotencyKey, Removal, Standing
from app.domain.errors import (
    CommandNotFound,
    IdempotencyConflict,
    StaleSession,
    queue_is_full,
)
from app.domain.ids import AgentId, CommandId, ControlId
from app.domain.models.agent import Session
from app.domain.models.command import Command
from app.domain.models.order import PendingControl, QueuedRun, SealedOrder
from app.domain.models.output import OutputTotals
from app.domain.models.states import NEXT, Action, State
from app.infrastructure.database.ports import Database
from app.infrastructure.database.tables import (
    AGENTS,
    CHUNKS,
    COMMANDS,
    CONTROL_ORDERS,
    IDEMPOTENCY_KEYS,
    LINE_MARKS,
    RUN_ORDERS,
    UNFINISHED_SQL,
)
from app.infrastructure.repositories.rows import (
    CHANGING_COLUMNS,
    STREAM_NUMBER,
    command_changes,
    command_of,
    command_values,
    mark_values,
    to_micros,
)
from app.infrastructure.repositories.sql_digests import SqlDigests
from app.infrastructure.repositories.sql_removal import remove_finished

#: How long a used idempotency key is remembered.
KEY_KEPT: Final = timedelta(hours=24)

_UNFINISHED: Final = COMMANDS.c.state.in_([state.value for state in NEXT])

# Built once: SQLAlchemy then finds its compiled form by identity.
_BY_ID: Final[Select[Any]] = select(COMMANDS).where(
    COMMANDS.c.id == bindparam("wanted"), COMMANDS.c.is_removed.is_(False)
)
_SAVE: Final[Update] = (
    update(COMMANDS)
    .where(COMMANDS.c.id == bindparam("wanted"))
    .values({name: bindparam(name) for name in CHANGING_COLUMNS})
)
_BY_ID_WITH_EPOCH: Final[Select[Any]] = (
    select(COMMANDS, AGENTS.c.epoch.label("newest_epoch"))
    .join(AGENTS, AGENTS.c.id == COMMANDS.c.agent_id, isouter=True)
    .where(COMMANDS.c.id == bindparam("wanted"), COMMANDS.c.is_removed.is_(False))
)
# Steps over entries of one index: 10,000 of them cost about a millisecond.
_NTH_QUEUED: Final[Select[Any]] = (
    select(COMMANDS.c.id)
    .where(COMMANDS.c.agent_id == bindparam("agent"), COMMANDS.c.state == State.QUEUED.value)
    .where(UNFINISHED_SQL)
    .limit(1)
    .offset(bindparam("before", type_=Integer))
)
_ADD: Final[Insert] = insert(COMMANDS)
_ADD_ORDER: Final[Insert] = insert(RUN_ORDERS)
_ADD_CHUNK: Final[Insert] = insert(CHUNKS)


class SqlCommandRepository:
    """A CommandRepository over SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._digests = SqlDigests()

    async def add(
        self,
        command: Command,
        sealed: SealedOrder,
        key: IdempotencyKey | None = None,
        *,
        waiting_max: int | None = None,
    ) -> CommandId:
        """Store a new command with its order, or find the first of its key."""

        def work(connection: Connection) -> CommandId:
            if key is not None:
                _forget_keys(connection, command.created_at)
                first = _used(connection, key, command.created_at)
                if first is not None:
                    return first
                _use(connection, key, command)
            if waiting_max is not None:
                _require_turn(connection, command.agent_id, waiting_max)
            connection.execute(_ADD, command_values(command))
            connection.execute(
                _ADD_ORDER,
                {
                    "command_id": command.id,
                    "order": sealed.order,
                    "signature": sealed.signature,
                    "key_id": sealed.key_id,
                },
            )
            return command.id

        return await self._database.write(work)

    async def first_of(self, key: IdempotencyKey, now: datetime) -> CommandId | None:
        """The command that a key was used for."""
        return await self._database.read(lambda connection: _used(connection, key, now))

    async def get(self, command_id: CommandId) -> Command:
        """One command."""
        return await self._database.read(lambda connection: _load(connection, command_id))

    async def change(
        self,
        command_id: CommandId,
        change: Callable[[Command], None],
        *,
        session: Session | None = None,
    ) -> Command:
        """Change one command and store the chunks it took."""

        def work(connection: Connection) -> Command:
            if session is None:
                command = _load(connection, command_id)
            else:
                command = _load_within(connection, command_id, session)
            self._digests.restore(connection, command)
            change(command)
            _save(connection, command)
            self._digests.keep(connection, command)
            return command

        return await self._database.write(work)

    async def request(
        self, command_id: CommandId, control: PendingControl, change: Callable[[Command], bool]
    ) -> Command:
        """Change one command and keep a control order for its agent."""

        def work(connection: Connection) -> Command:
            command = _load(connection, command_id)
            if change(command):
                # The newest request takes the place of one that is still on its way.
                connection.execute(
                    delete(CONTROL_ORDERS).where(CONTROL_ORDERS.c.command_id == command_id)
                )
                connection.execute(
                    insert(CONTROL_ORDERS),
                    {
                        "id": control.control_id,
                        "command_id": command_id,
                        "agent_id": command.agent_id,
                        "order": control.sealed.order,
                        "signature": control.sealed.signature,
                        "key_id": control.sealed.key_id,
                    },
                )
            _save(connection, command)
            return command

        return await self._database.write(work)

    async def page(
        self, wanted: CommandFilter, *, before: CommandId | None, limit: int
    ) -> list[Command]:
        """At most `limit` commands, newest first."""
        query = select(COMMANDS).where(COMMANDS.c.is_removed.is_(False))
        query = query.order_by(COMMANDS.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(COMMANDS.c.id < before)
        if wanted.agent_ids is not None:
            query = query.where(COMMANDS.c.agent_id.in_(wanted.agent_ids))
        if wanted.states is not None:
            query = query.where(COMMANDS.c.state.in_([state.value for state in wanted.states]))
        if wanted.requester is not None:
            query = query.where(COMMANDS.c.requester == wanted.requester)
        return await self._all(query)

    async def largest_id(self) -> CommandId | None:
        """The largest id of all commands."""
        query = select(func.max(COMMANDS.c.id))
        found = await self._database.read(lambda connection: connection.execute(query).scalar())
        return None if found is None else CommandId(found)

    async def standings(self, agent_id: AgentId) -> list[Standing]:
        """Where every unfinished command of the agent stands, oldest first."""
        query = (
            select(
                COMMANDS.c.id,
                COMMANDS.c.state,
                COMMANDS.c.offered_epoch,
                COMMANDS.c.requested_action,
                COMMANDS.c.next_seq,
                COMMANDS.c.stdout_bytes,
                COMMANDS.c.stderr_bytes,
            )
            .where(_UNFINISHED, COMMANDS.c.agent_id == agent_id)
            .order_by(COMMANDS.c.id)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [
            Standing(
                CommandId(row.id),
                State(row.state),
                row.offered_epoch,
                None if row.requested_action is None else Action(row.requested_action),
                OutputTotals(row.next_seq, row.stdout_bytes, row.stderr_bytes),
            )
            for row in rows
        ]

    async def overdue(self, now: datetime, *, limit: int) -> list[CommandId]:
        """Queued commands that were never offered and whose time has passed, oldest first."""
        query = (
            select(COMMANDS.c.id)
            .where(_UNFINISHED, COMMANDS.c.state == State.QUEUED.value)
            .where(COMMANDS.c.offered_epoch.is_(None), COMMANDS.c.expires_at <= to_micros(now))
            .order_by(COMMANDS.c.id)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [CommandId(row.id) for row in rows]

    async def count_unfinished(self) -> dict[AgentId, int]:
        """How many commands of each agent are not final."""
        query = (
            select(COMMANDS.c.agent_id, func.count().label("running"))
            .where(_UNFINISHED)
            .group_by(COMMANDS.c.agent_id)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {AgentId(row.agent_id): row.running for row in rows}

    async def queued_runs(
        self, agent_id: AgentId, *, after: CommandId | None, limit: int
    ) -> list[QueuedRun]:
        """Run orders of the agent's queued commands, oldest first."""
        query = (
            select(COMMANDS.c.id, COMMANDS.c.offered_epoch, RUN_ORDERS)
            .join(RUN_ORDERS, RUN_ORDERS.c.command_id == COMMANDS.c.id)
            .where(COMMANDS.c.agent_id == agent_id, COMMANDS.c.state == State.QUEUED.value)
            .where(_UNFINISHED, COMMANDS.c.id > (after or ""))
            .order_by(COMMANDS.c.id)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [
            QueuedRun(
                CommandId(row.id),
                row.offered_epoch,
                SealedOrder(row.order, row.signature, row.key_id),
            )
            for row in rows
        ]

    async def pending_controls(self, agent_id: AgentId) -> list[PendingControl]:
        """Control orders that the agent has not acknowledged, oldest first."""
        query = (
            select(CONTROL_ORDERS, COMMANDS.c.state)
            .join(COMMANDS, COMMANDS.c.id == CONTROL_ORDERS.c.command_id)
            .where(CONTROL_ORDERS.c.agent_id == agent_id)
            .order_by(CONTROL_ORDERS.c.id)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [
            PendingControl(
                ControlId(row.id),
                CommandId(row.command_id),
                wire.control_action(row.order),
                State(row.state),
                SealedOrder(row.order, row.signature, row.key_id),
            )
            for row in rows
        ]

    async def drop_control(self, control_id: ControlId) -> None:
        """Forget a control order."""
        query = delete(CONTROL_ORDERS).where(CONTROL_ORDERS.c.id == control_id)
        await self._database.write(lambda connection: connection.execute(query).close())

    async def remove_finished(self, before: datetime, *, max_rows: int, max_bytes: int) -> Removal:
        """Delete finished commands, the oldest first, within bounds."""
        removal = await self._database.write(
            lambda connection: remove_finished(
                connection, to_micros(before), max_rows=max_rows, max_bytes=max_bytes
            )
        )
        is_more = await self._database.give_back()
        return removal if not is_more else replace(removal, is_all=False)

    async def _all(self, query: Select[Any]) -> list[Command]:
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [command_of(row) for row in rows]


def _load(connection: Connection, command_id: CommandId) -> Command:
    row = connection.execute(_BY_ID, {"wanted": command_id}).one_or_none()
    if row is None:
        raise CommandNotFound(f"there is no command {command_id}")
    return command_of(row)


def _require_turn(connection: Connection, agent_id: AgentId, waiting_max: int) -> None:
    """Raise TooManyCommands where `waiting_max` of the agent's are queued."""
    wanted = {"agent": agent_id, "before": waiting_max - 1}
    if connection.execute(_NTH_QUEUED, wanted).first() is not None:
        raise queue_is_full(agent_id, waiting_max)


def _save(connection: Connection, command: Command) -> None:
    connection.execute(_SAVE, {"wanted": command.id, **command_changes(command)})
    chunks = command.pull_chunks()
    if chunks:
        connection.execute(
            _ADD_CHUNK,
            [
                {
                    "command_id": command.id,
                    "seq": chunk.seq,
                    "stream": STREAM_NUMBER[chunk.stream],
                    "offset": chunk.offset,
                    "length": len(chunk.data),
                    "at": to_micros(chunk.at),
                    "data": chunk.data,
                }
                for chunk in chunks
            ],
        )
    marks = command.pull_marks()
    if marks:
        connection.execute(insert(LINE_MARKS), [mark_values(command.id, mark) for mark in marks])
    if command.is_final and command.requested_action is not None:
        connection.execute(delete(CONTROL_ORDERS).where(CONTROL_ORDERS.c.command_id == command.id))


def _load_within(connection: Connection, command_id: CommandId, session: Session) -> Command:
    """A command for a frame of `session`, which has to be its agent's newest."""
    row = connection.execute(_BY_ID_WITH_EPOCH, {"wanted": command_id}).one_or_none()
    if row is None or row.agent_id != session.agent_id:
        raise CommandNotFound(f"there is no command {command_id} of {session.agent_id}")
    if row.newest_epoch != session.epoch:
        raise StaleSession(
            f"session {session.epoch} of agent {session.agent_id} is over, "
            f"{row.newest_epoch} is open"
        )
    return command_of(row)


def _forget_keys(connection: Connection, now: datetime) -> None:
    """Delete the keys that were kept long enough."""
    too_old = IDEMPOTENCY_KEYS.c.created_at < to_micros(now - KEY_KEPT)
    connection.execute(delete(IDEMPOTENCY_KEYS).where(too_old))


def _used(connection: Connection, key: IdempotencyKey, now: datetime) -> CommandId | None:
    """The first command of `key`, if it was used within KEY_KEPT."""
    keys = IDEMPOTENCY_KEYS.c
    row = connection.execute(
        select(IDEMPOTENCY_KEYS)
        .where(keys.requester == key.requester, keys.key == key.key)
        .where(keys.created_at >= to_micros(now - KEY_KEPT))
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != key.fingerprint:
        raise IdempotencyConflict("this idempotency key was used for another request: take a new")
    return CommandId(row.command_id)


def _use(connection: Connection, key: IdempotencyKey, command: Command) -> None:
    connection.execute(
        insert(IDEMPOTENCY_KEYS),
        {
            "requester": key.requester,
            "key": key.key,
            "fingerprint": key.fingerprint,
            "command_id": command.id,
            "created_at": to_micros(command.created_at),
        },
    )
