"""The composition root: the one place that picks adapters."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import socketio
import structlog
from starlette.types import ASGIApp

from app.application.dispatcher import Dispatcher
from app.application.event_bus import EventBus
from app.application.follower import Follower
from app.application.full_disk import once_there_is_room
from app.application.handover import Handover
from app.application.lifecycle import Lifecycle
from app.application.ports.wakeups import AGENTS_TOPIC, Wakeups, agent_topic, command_topic
from app.application.use_cases import UseCases
from app.application.use_cases.control_command import ControlCommand
from app.application.use_cases.expire_finished import ExpireFinished
from app.application.use_cases.expire_queued import ExpireQueued
from app.application.use_cases.manage_tokens import ManageTokens
from app.application.use_cases.manage_users import ChangeOwnPassword, ManageUsers, NewAccount
from app.application.use_cases.queries import Queries
from app.application.use_cases.read_output import ReadOutput
from app.application.use_cases.record_reports import RecordReports
from app.application.use_cases.register_agent import ConfirmEpoch, RegisterAgent
from app.application.use_cases.release_agent import DescribeAgent, ReleaseAgent
from app.application.use_cases.sign_in import Authenticate, SignIn
from app.application.use_cases.submit_command import SubmitCommand
from app.domain import events
from app.domain.errors import Unavailable
from app.domain.ids import IdSource, UserName
from app.domain.models.user import Role
from app.infrastructure.data_dir import kept_secret, write_private
from app.infrastructure.database.migrate import migrate_sqlite
from app.infrastructure.database.sqlite_database import open_sqlite_database
from app.infrastructure.disk_room import DiskRoom
from app.infrastructure.in_process_wakeups import InProcessWakeups
from app.infrastructure.re2_filter import compile_filter
from app.infrastructure.repositories.caching_output_log import CachingOutputLog
from app.infrastructure.repositories.caching_repositories import (
    CachingAgentRepository,
    CachingCommandRepository,
    CachingUserRepository,
)
from app.infrastructure.repositories.sql_agent_repository import SqlAgentRepository
from app.infrastructure.repositories.sql_command_repository import SqlCommandRepository
from app.infrastructure.repositories.sql_output_log import SqlOutputLog
from app.infrastructure.repositories.sql_user_repository import SqlUserRepository
from app.infrastructure.security.jose_tokens import JoseTokens
from app.infrastructure.security.limits_attempts import LimitsAttempts
from app.infrastructure.security.passlib_hasher import PasslibHasher
from app.infrastructure.security.unsigned_sealer import UnsignedSealer
from app.infrastructure.socketio.agent_channel import ACK_TIMEOUT_S, SocketIOAgentChannel
from app.infrastructure.socketio.servers import create_agent_server, create_client_server
from app.infrastructure.system_clock import SystemClock
from app.presentation.http.api import create_api
from app.presentation.http.body_limit import BodyLimit
from app.presentation.socketio.agent_door import AgentDoor
from app.presentation.socketio.agent_namespace import AgentNamespace
from app.presentation.socketio.client_namespace import ClientNamespace
from app.settings import Settings
from ogent.protocol.names import AGENT_SOCKET_PATH, CLIENT_SOCKET_PATH

log = structlog.get_logger(__name__)

#: How often queued commands are looked at for those whose time has passed.
EXPIRY_INTERVAL_S: Final = 1.0
#: How often finished commands are looked at for those that were kept long enough, and how long
#: others have the database to themselves between two batches.
RETENTION_INTERVAL_S: Final = 60.0
RETENTION_PAUSE_S: Final = 0.05
INITIAL_PASSWORD_FILE: Final = "initial-admin-password"  # noqa: S105 - a file's name


@dataclass(frozen=True, slots=True)
class Controller:
    """A running controller: its ASGI application, and how it begins to stop."""

    app: ASGIApp
    lifecycle: Lifecycle
    doors: tuple[AgentNamespace, ClientNamespace]

    async def drain(self) -> None:
        """Take no new work and close every socket."""
        self.lifecycle.drain()
        for door in self.doors:
            await door.close()


@asynccontextmanager
async def bootstrap(settings: Settings) -> AsyncIterator[Controller]:
    """Open what the controller needs, build it, close all in reverse order.

    The data folder has to be held by the caller.
    """
    async with AsyncExitStack() as stack:
        use_cases, wakeups, agent_server, channel = await _application(settings, stack)
        client_server = create_client_server(settings.cors_allowed_origins)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        agents = AgentNamespace(agent_server, use_cases, channel, tasks)
        clients = ClientNamespace(client_server, use_cases, wakeups, SystemClock(), tasks)
        expiry = tasks.create_task(_expire(use_cases.expire_queued), name="expiry")
        stack.callback(expiry.cancel)
        retention = tasks.create_task(_delete(use_cases.expire_finished), name="retention")
        stack.callback(retention.cancel)
        stack.push_async_callback(clients.close)
        stack.push_async_callback(agents.close)
        app = _routes(use_cases, client_server, agent_server, settings.cors_allowed_origins)
        yield Controller(app, use_cases.lifecycle, (agents, clients))


async def _application(
    settings: Settings, stack: AsyncExitStack
) -> tuple[UseCases, Wakeups, socketio.AsyncServer, SocketIOAgentChannel]:
    await asyncio.to_thread(migrate_sqlite, settings.database_path)
    database = await stack.enter_async_context(open_sqlite_database(settings.database_path))
    agents = CachingAgentRepository(SqlAgentRepository(database))
    users = CachingUserRepository(SqlUserRepository(database))
    output = CachingOutputLog(SqlOutputLog(database))
    commands = CachingCommandRepository(SqlCommandRepository(database), output)
    clock, wakeups = SystemClock(), InProcessWakeups()
    # Dispatching and every list go by ids: after a clock was set back, too, new ones come last.
    new_id = IdSource(after=await commands.largest_id())
    hasher = await stack.enter_async_context(PasslibHasher())
    tokens = JoseTokens(
        _secret_key(settings),
        lifetime=timedelta(minutes=settings.access_token_expire_minutes),
        clock=clock,
    )
    agent_server = create_agent_server()
    channel = SocketIOAgentChannel(agent_server, ack_timeout_s=ACK_TIMEOUT_S)
    handover = Handover()
    bus, sealer = _event_bus(wakeups, handover), UnsignedSealer()
    room = DiskRoom(settings.database_path.parent, min_free_bytes=settings.min_free_bytes)
    queries = Queries(agents=agents, commands=commands, output=output, clock=clock)
    use_cases = UseCases(
        sign_in=SignIn(users=users, hasher=hasher, tokens=tokens, attempts=LimitsAttempts()),
        authenticate=Authenticate(users=users, tokens=tokens, clock=clock),
        manage_users=ManageUsers(users=users, hasher=hasher, clock=clock),
        manage_tokens=ManageTokens(users=users, clock=clock, new_id=new_id),
        change_own_password=ChangeOwnPassword(users=users, hasher=hasher),
        register_agent=RegisterAgent(agents=agents, commands=commands, bus=bus, clock=clock),
        confirm_epoch=ConfirmEpoch(agents=agents),
        release_agent=ReleaseAgent(agents=agents, bus=bus, clock=clock),
        describe_agent=DescribeAgent(agents=agents, bus=bus, clock=clock),
        submit_command=SubmitCommand(
            agents=agents,
            commands=commands,
            room=room,
            sealer=sealer,
            handover=handover,
            bus=bus,
            clock=clock,
            new_id=new_id,
            max_output_bytes=settings.max_output_bytes,
        ),
        control_command=ControlCommand(
            agents=agents, commands=commands, sealer=sealer, bus=bus, clock=clock, new_id=new_id
        ),
        record_reports=RecordReports(commands=commands, bus=bus, clock=clock),
        expire_queued=ExpireQueued(commands=commands, bus=bus, clock=clock),
        expire_finished=ExpireFinished(
            commands=commands, clock=clock, kept_for=timedelta(days=settings.retention_days)
        ),
        queries=queries,
        read_output=ReadOutput(queries=queries, output=output, compile_filter=compile_filter),
        follower=Follower(commands, output, wakeups),
        dispatcher=Dispatcher(commands, channel, wakeups, handover, bus, clock),
        lifecycle=Lifecycle(),
        room=room,
    )
    await once_there_is_room(lambda: agents.release_all(at=clock.now()))
    await _first_administrator(settings, use_cases.manage_users)
    return use_cases, wakeups, agent_server, channel


def _event_bus(wakeups: Wakeups, handover: Handover) -> EventBus:
    def command_changed(event: events.CommandMoved | events.OutputAppended) -> None:
        wakeups.notify(command_topic(event.command_id))

    def agent_has_orders(event: events.ControlRequested) -> None:
        wakeups.notify(agent_topic(event.agent_id))

    def agents_changed(_event: events.Event) -> None:
        wakeups.notify(AGENTS_TOPIC)

    return EventBus(
        {
            events.ControlRequested: [agent_has_orders],
            events.CommandQueued: [handover.on_queued],
            events.CommandMoved: [handover.on_moved, command_changed],
            events.OutputAppended: [command_changed],
            events.AgentRegistered: [agents_changed],
            events.AgentReleased: [agents_changed],
            events.AgentChanged: [agents_changed],
        }
    )


def _routes(
    use_cases: UseCases,
    client_server: socketio.AsyncServer,
    agent_server: socketio.AsyncServer,
    allowed_origins: Sequence[str],
) -> ASGIApp:
    api = BodyLimit(create_api(use_cases, allowed_origins))
    clients = socketio.ASGIApp(client_server, other_asgi_app=api, socketio_path=CLIENT_SOCKET_PATH)
    agents = socketio.ASGIApp(agent_server, socketio_path=AGENT_SOCKET_PATH)
    return AgentDoor(clients, agents, use_cases.authenticate)


def _secret_key(settings: Settings) -> str:
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    return kept_secret(settings.data_dir / "secret-key")


async def _first_administrator(settings: Settings, users: ManageUsers) -> None:
    given = settings.admin_password
    password = secrets.token_urlsafe(18) if given is None else given.get_secret_value()
    account = NewAccount(name=UserName(settings.admin_username), password=password, role=Role.ADMIN)
    if await users.ensure_first_administrator(account) and given is None:
        tell_password(settings.data_dir / INITIAL_PASSWORD_FILE, account.name, password)


def tell_password(path: Path, username: str, password: str) -> None:
    """Keep a generated password in a private file, and show it on a terminal, never in a log."""
    write_private(path, password + "\n")
    log.info("a password was generated", username=username, file=str(path))
    if sys.stderr.isatty():
        sys.stderr.write(f"\n  sign in as {username} with the password {password}\n\n")


async def _expire(expire_queued: ExpireQueued) -> None:
    while True:
        await asyncio.sleep(EXPIRY_INTERVAL_S)
        try:
            await expire_queued()
        except Unavailable as exc:  # the next round looks at the same commands
            log.warning("queued commands could not be looked at", reason=exc.message)


async def _delete(expire_finished: ExpireFinished) -> None:
    while True:
        is_more = False
        try:
            is_more = await expire_finished()
        except Unavailable as exc:  # the next round looks at the same commands
            log.warning("finished commands could not be deleted", reason=exc.message)
        await asyncio.sleep(RETENTION_PAUSE_S if is_more else RETENTION_INTERVAL_S)
