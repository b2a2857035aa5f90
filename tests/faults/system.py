"""A controller, a link and an agent with its runner, whose deaths are written down."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ogent.client import ApiError, Client, ConnectionFailed, State
from ogent.client.errors import Draining, StorageFull, StorageUnavailable
from ogent.protocol.states import FINAL
from tests.e2e.faulty_proxy import FaultyProxy
from tests.e2e.services import (
    ADMIN_PASSWORD,
    AGENT_ACCOUNT,
    AGENT_PASSWORD,
    Agent,
    Controller,
    agent_in,
    controller_in,
    is_alive,
    online,
    runner_pid,
    until,
)
from tests.faults.history import History
from tests.faults.plans import Plan

#: For a system to be whole again after a fault: back-off, dead links, and a slow machine.
RECOVERY_S = 75.0
AGAIN_S = 0.05  # nobody tells when a refusal would no longer be one
_NOT_NOW = (ConnectionFailed, Draining, StorageFull, StorageUnavailable)


@dataclass
class System:
    """One controller, one agent behind a link that may be bad, and what was done to them.

    `ledger` is where every command leaves its key. `client` reaches the controller directly.
    """

    folder: Path
    controller: Controller
    agent: Agent
    link: FaultyProxy
    client: Client
    token: str
    history: History = field(default_factory=History)
    accepted: set[str] = field(default_factory=set)
    _keys: Iterator[int] = field(default_factory=itertools.count)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def agent_data(self) -> Path:
        return Path(self.agent.service.settings["DATA_DIR"])

    def key(self) -> str:
        """A name for a command that no other has had here."""
        return f"k{next(self._keys)}"

    # --- commands -------------------------------------------------------------------------------

    async def submit(self, plan: Plan, *, queue: bool = True) -> str:
        """Ask until it is accepted, with one idempotency key; the command's id."""
        async with asyncio.timeout(RECOVERY_S):
            while True:
                try:
                    started = await self.client.execute(
                        self.agent.id,
                        plan.line,
                        wait=0,
                        env=plan.environment(self.ledger),
                        timeout=plan.timeout_s,
                        queue=queue,
                        idempotency_key=plan.key,
                    )
                except _NOT_NOW as exc:
                    self.history.note(f"{plan.key} was not accepted: {exc}")
                    await asyncio.sleep(AGAIN_S)
                else:
                    self.history.note(f"{plan.key} is {started.command_id}")
                    self.accepted.add(started.command_id)
                    return started.command_id

    async def refuses(self, error: type[ApiError]) -> None:
        """Return once a submission is refused so; one that is not counts as accepted."""
        async with asyncio.timeout(RECOVERY_S):
            while True:
                try:
                    started = await self.client.execute(self.agent.id, "true", wait=0, queue=True)
                except error as exc:
                    self.history.note(f"refused: {exc.code}")
                    return
                self.accepted.add(started.command_id)
                await asyncio.sleep(4 * AGAIN_S)  # each of them takes room as well

    async def control(self, command_id: str, action: Literal["cancel", "kill"]) -> None:
        self.history.note(f"{action} {command_id}")
        await self.client.control(command_id, action)

    async def has_started(self, command_id: str) -> None:
        """Return once its process is known to exist, or to have existed."""
        await self.until_state(command_id, FINAL | {State.RUNNING})

    async def state_of(self, command_id: str) -> State:
        return (await self.client.command(command_id)).state

    async def finished(self, command_id: str) -> State:
        """The final state of a command, once it has one."""
        return await self.until_state(command_id, FINAL)

    async def until_state(self, command_id: str, states: frozenset[State]) -> State:
        async with asyncio.timeout(RECOVERY_S):
            while (state := await self.state_of(command_id)) not in states:
                await asyncio.sleep(AGAIN_S)
        return state

    def starts_of(self, key: str) -> int:
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return lines.count(key)

    # --- faults ---------------------------------------------------------------------------------

    async def kill_controller(self) -> None:
        """kill -9, and the next one at once in the same folder."""
        await self.stop_controller(signal.SIGKILL)
        await self.start_controller()

    async def stop_controller(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.history.note(f"{number.name} to the controller, pid {self.controller.service.pid}")
        return await self.controller.service.stop(number)

    async def start_controller(self) -> None:
        await asyncio.to_thread(self.controller.start)
        self.history.note(f"a controller is back, pid {self.controller.service.pid}")

    async def kill_agent(self) -> None:
        """kill -9, and the next one at once in the same folder."""
        await self.stop_agent(signal.SIGKILL)
        self.start_agent()

    async def stop_agent(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.history.note(f"{number.name} to the agent, pid {self.agent.service.pid}")
        return await self.agent.service.stop(number)

    def start_agent(self) -> None:
        self.agent.service.start()
        self.history.note(f"an agent starts, pid {self.agent.service.pid}")

    async def kill_runner(self) -> None:
        """kill -9; the agent sees to the next one."""
        await until(lambda: self.runner_pid() is not None)
        pid = self.runner_pid()
        assert pid is not None
        self.history.note(f"SIGKILL to the runner, pid {pid}")
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_alive(pid))

    async def cut_link(self) -> None:
        self.history.note("every connection of the agent is reset")
        self.link.cut()

    async def stop(self, service: str) -> int:
        """SIGTERM to the `controller` or the `agent`; its exit status."""
        return await (self.stop_controller() if service == "controller" else self.stop_agent())

    async def start(self, service: str) -> None:
        if service == "controller":
            await self.start_controller()
        else:
            self.start_agent()

    @asynccontextmanager
    async def standing_still(self, service: str) -> AsyncIterator[None]:
        """SIGSTOP to the `controller` or the `agent` while the context is open."""
        process = self.controller.service if service == "controller" else self.agent.service
        self.history.note(f"SIGSTOP to the {service}")
        process.send(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send(signal.SIGCONT)
            self.history.note(f"SIGCONT to the {service}")

    def runner_pid(self) -> int | None:
        """The runner that lives, as its file names it."""
        pid = runner_pid(self.agent_data)
        return pid if pid is not None and is_alive(pid) else None

    async def is_whole(self) -> None:
        """Return once the agent is on line."""
        async with asyncio.timeout(RECOVERY_S):
            while True:
                with suppress(ApiError, ConnectionFailed, TimeoutError):
                    await online(self.client, self.agent.id)
                    return

    def logs(self) -> str:
        """The last lines of both logs, for the story."""
        parts = {"controller": self.controller.service.log, "agent": self.agent.service.log}
        runner = self.agent_data / "runner" / "runner.log"
        if runner.exists():
            parts["runner"] = runner.read_text(errors="replace")
        return "\n".join(f"--- {name}\n{_tail(text)}" for name, text in parts.items())


Fault = Callable[[System], Awaitable[None]]

#: What may die or break, by the word that a test's name and its story use.
FAULTS: Mapping[str, Fault] = {
    "controller": System.kill_controller,
    "agent": System.kill_agent,
    "runner": System.kill_runner,
    "link": System.cut_link,
}


@asynccontextmanager
async def system_in(
    folder: Path,
    *,
    controller_settings: Mapping[str, str] | None = None,
    agent_settings: Mapping[str, str] | None = None,
) -> AsyncIterator[System]:
    """A whole system; at the end nothing of it is left, its commands included."""
    given = {"ACCESS_TOKEN_EXPIRE_MINUTES": "1440", **(controller_settings or {})}
    with controller_in(folder / "controller", verify=False, **given) as controller:
        await asyncio.to_thread(controller.start)
        await asyncio.to_thread(controller.make_account, AGENT_ACCOUNT, AGENT_PASSWORD)
        token = await asyncio.to_thread(lambda: controller.token)
        async with (
            Client(
                controller.url, username="admin", password=ADMIN_PASSWORD, retry_for=RECOVERY_S
            ) as client,
            FaultyProxy(controller.url).serving() as link,
        ):
            with agent_in(folder / "agent", "faulty", link.url, **(agent_settings or {})) as agent:
                system = System(folder, controller, agent, link, client, token)
                system.start_agent()
                await system.is_whole()
                yield system


@asynccontextmanager
async def neighbour_of(system: System, agent_id: str) -> AsyncIterator[System]:
    """Another agent of the same controller, behind a link of its own."""
    async with FaultyProxy(system.controller.url).serving() as link:
        with agent_in(system.folder / agent_id, agent_id, link.url) as agent:
            neighbour = replace(system, agent=agent, link=link, history=History())
            neighbour.start_agent()
            await neighbour.is_whole()
            yield neighbour


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.splitlines()[-lines:])
