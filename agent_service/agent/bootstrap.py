"""Composition root: the one place that picks adapters."""

import asyncio
import logging
import os
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from agent import wire
from agent.application.controller_time import ControllerTime
from agent.application.delivery import Delivery
from agent.application.ports.executor import Executor
from agent.application.ports.journal import Journal
from agent.application.supervisor import Supervisor
from agent.application.use_cases.accept_order import AcceptOrder
from agent.application.use_cases.control_execution import ControlExecution
from agent.application.use_cases.report_status import ReportStatus
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
from agent.infrastructure.runner.client import RunnerClient, RunnerGone
from agent.infrastructure.storage.file_journal import open_file_journal
from agent.infrastructure.storage.file_spool import FileSpool
from agent.infrastructure.storage.identity import agent_id_in
from agent.infrastructure.system_clock import SystemClock
from agent.presentation.host.door import HostDoor, open_host_door
from agent.presentation.socketio.controller_events import ControllerEvents, UseCases
from agent.settings import InvalidSettings, Settings
from ogent.protocol.messages import AgentAuth
from ogent.protocol.version import PROTOCOL_VERSION

log = logging.getLogger(__name__)

#: For a runner to be there before anything else begins.
RUNNER_TIMEOUT_S: Final = 30.0
#: A graceful stop: for what is about to be started, and for what has ended to be handed over.
STOP_TIMEOUT_S: Final = 6.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


async def run_agent(settings: Settings, data_dir: Path) -> None:
    """Serve the controller until SIGTERM or SIGINT, then stop gracefully.

    Neither a stop nor the death of this process ends a command: the runner goes on, and the next
    start takes everything up again.
    Raises Superseded, GivenUp, RunnerGone, and InvalidSettings where this host does not fit the
    settings.
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
        log.info("stopping; what runs goes on")
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._supervisor.stop()
                if self._delivery.is_serving:
                    await self._delivery.flushed()
        except TimeoutError:
            log.warning("stopped before everything was handed over: the next start does that")


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The agent without its controller: what it has accepted, and who runs that."""

    agent_id: AgentId
    runner: RunnerClient
    time: ControllerTime
    journal: Journal
    delivery: Delivery
    executors: Mapping[ExecutionType, Executor]
    supervisor: Supervisor


@asynccontextmanager
async def open_core(
    settings: Settings, data_dir: Path, *, starts_commands: bool = True
) -> AsyncIterator[Core]:
    """Take up what an earlier start has left, and go on with it while open.

    Without `starts_commands` what waits goes on waiting.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(open_file_journal(data_dir / "journal"))
        time = ControllerTime(clock, journal.ahead_s())
        runner = RunnerClient(
            data_dir,
            spool_max_bytes=settings.spool_max_bytes,
            grown=lambda command_id: delivery.grown(command_id),
        )
        spool = stack.enter_context(closing(FileSpool(data_dir / "spool", runner)))
        delivery = Delivery(spool, journal, clock)
        await stack.enter_async_context(_kept(runner))
        local = LocalExecutor(command_account(settings), runner)
        executors: Mapping[ExecutionType, Executor] = {ExecutionType.LOCAL: local}
        supervisor = await stack.enter_async_context(
            Supervisor(
                RunExecution(executors=executors, journal=journal, time=time, clock=clock),
                journal=journal,
                delivery=delivery,
                clock=clock,
                max_concurrent=settings.max_concurrent_commands,
            )
        )
        if not starts_commands:
            await supervisor.stop()
        await _take_up(journal, supervisor, local)
        yield Core(
            agent_id=AgentId(settings.agent_id) if settings.agent_id else agent_id_in(data_dir),
            runner=runner,
            time=time,
            journal=journal,
            delivery=delivery,
            executors=executors,
            supervisor=supervisor,
        )


@asynccontextmanager
async def open_agent(settings: Settings, data_dir: Path) -> AsyncIterator[Agent]:
    """Open what the agent needs, build its use cases, close all in reverse order."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(_http(settings))
        core = await stack.enter_async_context(open_core(settings, data_dir))
        door = HostDoor(
            ReportStatus(
                agent_id=core.agent_id, supervisor=core.supervisor, delivery=core.delivery
            ),
            core.supervisor,
        )
        await stack.enter_async_context(open_host_door(data_dir, door))
        log.info("agent %s serves %s", core.agent_id, settings.controller_url)
        sessions = _sessions(settings, core.agent_id, http, _use_cases(settings, core))
        yield Agent(sessions, core.supervisor, core.delivery)


def _use_cases(settings: Settings, core: Core) -> UseCases:
    return UseCases(
        accept_order=AcceptOrder(
            agent_id=core.agent_id,
            journal=core.journal,
            supervisor=core.supervisor,
            time=core.time,
        ),
        control_execution=ControlExecution(
            agent_id=core.agent_id, journal=core.journal, supervisor=core.supervisor
        ),
        resume_session=ResumeSession(
            agent_id=core.agent_id,
            facts=host_facts(list(core.executors)),
            labels=settings.agent_labels,
            journal=core.journal,
            delivery=core.delivery,
            supervisor=core.supervisor,
            time=core.time,
        ),
        delivery=core.delivery,
        verify=wire.unsigned_orders,
    )


async def stop_all_commands(settings: Settings, data_dir: Path) -> None:
    """End every command of an agent that does not run, and its runner; raises RunnerGone.

    How they came out is told to the controller at the agent's next start.
    """
    async with open_core(settings, data_dir, starts_commands=False) as core:
        await core.supervisor.stop_commands()
        await core.runner.end()


@asynccontextmanager
async def _kept(runner: RunnerClient) -> AsyncIterator[None]:
    """Have a runner while open; raises RunnerGone where none can be had."""
    keeping = asyncio.create_task(runner.keep(), name="runner")
    keeping.add_done_callback(_end_with)
    try:
        await _first_runner(runner)
        yield
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


def _end_with(keeping: asyncio.Task[None]) -> None:
    """End the process where nobody looks after the runner any more: a bug."""
    if not keeping.cancelled() and (bug := keeping.exception()) is not None:
        log.critical("nobody looks after the runner: the agent stops", exc_info=bug)
        os.kill(os.getpid(), signal.SIGTERM)


async def _first_runner(runner: RunnerClient) -> None:
    try:
        async with asyncio.timeout(RUNNER_TIMEOUT_S):
            await runner.ready()
    except TimeoutError as exc:
        raise RunnerGone("no runner can be started: see runner/runner.log in DATA_DIR") from exc


async def _take_up(journal: Journal, supervisor: Supervisor, local: LocalExecutor) -> None:
    """Go on with what the journal holds, and end what it does not know of."""
    unfinished = journal.unfinished()
    await local.discard_strays([entry.order.id for entry in unfinished])
    for entry in unfinished:
        supervisor.take_up(entry)
    if unfinished:
        log.info("%d commands of an earlier start are taken up", len(unfinished))


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
