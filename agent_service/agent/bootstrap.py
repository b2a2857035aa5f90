"""Composition root: the one place that picks adapters."""

import asyncio
import logging
import os
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from agent import wire
from agent.application.controller_time import ControllerTime
from agent.application.delivery import Delivery
from agent.application.ports.clock import Clock
from agent.application.ports.executor import Executor
from agent.application.ports.journal import Journal
from agent.application.ports.spool import Spool
from agent.application.supervisor import Supervisor
from agent.application.use_cases.accept_order import AcceptOrder
from agent.application.use_cases.control_execution import ControlExecution
from agent.application.use_cases.resume_session import ResumeSession
from agent.application.use_cases.run_execution import RunExecution
from agent.domain.ids import AgentId
from agent.domain.models.executor import ExecutionType
from agent.infrastructure.controller.session import Backoff, keep_session
from agent.infrastructure.controller.sign_in import PasswordSignIn
from agent.infrastructure.controller.socketio_link import open_link
from agent.infrastructure.executors.accounts import Account, account_named, own_account
from agent.infrastructure.executors.local_executor import LocalExecutor
from agent.infrastructure.host_facts import host_facts
from agent.infrastructure.storage.identity import agent_id_in
from agent.infrastructure.storage.in_memory_journal import InMemoryJournal
from agent.infrastructure.storage.in_memory_spool import InMemorySpool
from agent.infrastructure.system_clock import SystemClock
from agent.presentation.socketio.controller_events import ControllerEvents, UseCases
from agent.settings import InvalidSettings, Settings
from ogent.protocol.limits import MIB
from ogent.protocol.messages import AgentAuth
from ogent.protocol.version import PROTOCOL_VERSION

log = logging.getLogger(__name__)

#: The spool is in memory, where SPOOL_MAX_BYTES counts up to this much.
MEMORY_SPOOL_MAX_BYTES: Final = 32 * MIB
#: A graceful stop: for the commands to end, then for their outcomes to be acknowledged.
STOP_TIMEOUT_S: Final = 10.0
FLUSH_TIMEOUT_S: Final = 5.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


async def run_agent(settings: Settings, data_dir: Path) -> None:
    """Serve the controller until SIGTERM or SIGINT, then stop gracefully.

    A stop ends the commands that run, since nothing that outlives this process could go on
    reading what they write; they are reported `lost` with the code `agent_stopped`. A killed
    agent leaves its commands alone, and its next start knows nothing of them.
    Raises Superseded, GivenUp, and InvalidSettings where this host does not fit the settings.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_agent(settings, data_dir) as agent:
        await agent.run(until=stop.wait())


class Agent:
    """An agent that is ready to serve its controller."""

    def __init__(
        self, keep: Callable[[], Awaitable[None]], supervisor: Supervisor, delivery: Delivery
    ) -> None:
        self._keep = keep
        self._supervisor = supervisor
        self._delivery = delivery

    async def run(self, until: Awaitable[object]) -> None:
        """Keep a session with the controller; once `until` returns, stop gracefully."""
        # No TaskGroup: it would break a stop off where the session fails meanwhile, and wrap the
        # error. Both tasks have ended, or are cancelled, when this returns.
        session = asyncio.ensure_future(self._keep())
        stopping = asyncio.ensure_future(until)
        try:
            await asyncio.wait({session, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not session.done():
                await self._stop()
        finally:
            stopping.cancel()
            session.cancel()
            await asyncio.wait({session})
        if not session.cancelled():
            session.result()

    async def _stop(self) -> None:
        log.info("stopping")
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._supervisor.stop()
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self._delivery.flushed()
        except TimeoutError:
            log.warning("stopped before everything could be handed over")


@asynccontextmanager
async def open_agent(settings: Settings, data_dir: Path) -> AsyncIterator[Agent]:
    """Open what the agent needs, build its use cases, close all in reverse order."""
    agent_id = AgentId(settings.agent_id) if settings.agent_id else agent_id_in(data_dir)
    account = command_account(settings)
    clock = SystemClock()
    time = ControllerTime(clock)
    journal: Journal = InMemoryJournal()
    spool: Spool = InMemorySpool(min(settings.spool_max_bytes, MEMORY_SPOOL_MAX_BYTES))
    delivery = Delivery(spool, journal, clock)
    executors: Mapping[ExecutionType, Executor] = {ExecutionType.LOCAL: LocalExecutor(account)}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(_http(settings))
        supervisor = await stack.enter_async_context(
            _supervisor(
                settings, RunExecution(executors=executors, time=time), journal, delivery, clock
            )
        )
        use_cases = UseCases(
            accept_order=AcceptOrder(
                agent_id=agent_id, journal=journal, supervisor=supervisor, time=time
            ),
            control_execution=ControlExecution(
                agent_id=agent_id, journal=journal, supervisor=supervisor
            ),
            resume_session=ResumeSession(
                agent_id=agent_id,
                facts=host_facts(list(executors)),
                labels=settings.agent_labels,
                journal=journal,
                delivery=delivery,
                supervisor=supervisor,
                time=time,
            ),
            delivery=delivery,
            verify=wire.unsigned_orders,
        )
        log.info("agent %s serves %s", agent_id, settings.controller_url)
        yield Agent(_sessions(settings, agent_id, http, use_cases), supervisor, delivery)


def _supervisor(
    settings: Settings, run: RunExecution, journal: Journal, delivery: Delivery, clock: Clock
) -> Supervisor:
    return Supervisor(
        run,
        journal=journal,
        delivery=delivery,
        clock=clock,
        max_concurrent=settings.max_concurrent_commands,
    )


def _sessions(
    settings: Settings, agent_id: AgentId, http: aiohttp.ClientSession, use_cases: UseCases
) -> Callable[[], Awaitable[None]]:
    sign_in = _sign_in(settings, agent_id, http)
    backoff = Backoff(
        first_s=settings.reconnect_delay, max_attempts=settings.max_reconnect_attempts
    )
    auth = AgentAuth(
        instance_id=secrets.token_urlsafe(16), boot_id=_boot_id(), protocol=PROTOCOL_VERSION
    )

    async def serve(token: str) -> None:
        events = ControllerEvents(use_cases)
        async with open_link(
            settings.controller_url,
            http=http,
            token=token,
            auth=auth,
            handlers=events.handlers(),
        ) as link:
            await events.serve(link, link.closed())

    return lambda: keep_session(sign_in, serve, backoff)


def _sign_in(settings: Settings, agent_id: AgentId, http: aiohttp.ClientSession) -> PasswordSignIn:
    if settings.agent_username is None or settings.agent_password is None:
        raise InvalidSettings("AGENT_USERNAME: is missing")
    return PasswordSignIn(
        http=http,
        url=settings.controller_url,
        agent_id=agent_id,
        username=settings.agent_username,
        password=settings.agent_password.get_secret_value(),
    )


def command_account(settings: Settings) -> Account:
    """Who commands run as; raises InvalidSettings where this process cannot become it."""
    if settings.command_user is None:
        account = own_account()
        log.warning(
            "COMMAND_USER is not set: commands run as %s, like the agent itself, so whoever may "
            "run commands here owns this agent",
            account.name,
        )
        return account
    if os.geteuid() != 0:
        raise InvalidSettings("COMMAND_USER: only an agent that runs as root can change accounts")
    try:
        return account_named(settings.command_user)
    except (KeyError, ValueError) as exc:
        raise InvalidSettings("COMMAND_USER: this host has no account of that name") from exc


def _http(settings: Settings) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=_tls(settings))
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _tls(settings: Settings) -> ssl.SSLContext | bool:
    if settings.tls_ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.tls_ca_file)
    except OSError as exc:
        raise InvalidSettings(f"TLS_CA_FILE: cannot be used: {exc.strerror or exc}") from exc


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""
