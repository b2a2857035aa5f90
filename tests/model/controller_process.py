"""The controller as one process of the model: its real parts over the model's outside."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import SimpleNamespace
from typing import Any

from app.application.dispatcher import Dispatcher
from app.application.event_bus import EventBus
from app.application.follower import Ended, Follower
from app.application.handover import Handover
from app.application.lifecycle import Lifecycle
from app.application.ports.wakeups import agent_topic, command_topic
from app.application.use_cases.control_command import ControlCommand
from app.application.use_cases.expire_queued import ExpireQueued
from app.application.use_cases.record_reports import RecordReports
from app.application.use_cases.register_agent import ConfirmEpoch, RegisterAgent
from app.application.use_cases.release_agent import DescribeAgent, ReleaseAgent
from app.application.use_cases.submit_command import Submission, SubmitCommand
from app.domain import events
from app.domain.ids import CommandId
from app.domain.models.command import Command
from app.domain.models.output import Chunk
from app.domain.models.states import Action
from app.infrastructure.in_memory_room import InMemoryRoom
from app.infrastructure.in_process_wakeups import InProcessWakeups
from app.infrastructure.security.unsigned_sealer import UnsignedSealer
from app.infrastructure.socketio.agent_channel import ACK_TIMEOUT_S, SocketIOAgentChannel
from app.presentation.socketio.agent_door import LetIn
from app.presentation.socketio.agent_namespace import AgentNamespace
from tests.builders import ALICE, WEB, a_principal
from tests.model.agent_process import VirtualClock
from tests.model.network import ModelServer, Network
from tests.model.storage import Committing, Database, Disk
from tests.model.virtual_loop import Life

#: How often queued commands are looked at for those whose time has passed.
EXPIRY_INTERVAL_S = 5.0
#: Output of one command that is kept: little, so that some is more.
MAX_OUTPUT_BYTES = 48
ENVIRON = {"asgi.scope": {"ogent.agent": LetIn(WEB, ALICE)}}


class _Accounts:
    """Everybody's account is as it was."""

    async def require_agent_account(self, account: object) -> None:
        """It is still one of an agent."""


class ControllerProcess:
    """A controller, from its start to its end."""

    def __init__(
        self,
        database: Database,
        disk: Disk,
        network: Network,
        new_id: Callable[[], str],
        name: str,
    ) -> None:
        self.life = Life(network.loop, name)
        self._network = network
        self._wakeups = InProcessWakeups()
        self._handover = Handover()
        self._server = ModelServer(self.life, ENVIRON)
        self._channel = SocketIOAgentChannel(self._server, ack_timeout_s=ACK_TIMEOUT_S)
        self._agents: Any = Committing(database.agents, disk, self.life)
        commands: Any = Committing(database.commands, disk, self.life)
        output: Any = Committing(database.output, disk, self.life)
        clock, bus, sealer = VirtualClock(network.loop), self._bus(), UnsignedSealer()
        room = InMemoryRoom()
        agents = self._agents
        self._clock = clock
        self._submit = SubmitCommand(
            agents=agents,
            commands=commands,
            room=room,
            sealer=sealer,
            handover=self._handover,
            bus=bus,
            clock=clock,
            new_id=new_id,
            max_output_bytes=MAX_OUTPUT_BYTES,
        )
        self._control = ControlCommand(
            agents=agents, commands=commands, sealer=sealer, bus=bus, clock=clock, new_id=new_id
        )
        self._expire_queued = ExpireQueued(commands=commands, bus=bus, clock=clock)
        self._follower = Follower(commands, output, self._wakeups)
        self._use_cases: Any = SimpleNamespace(
            authenticate=_Accounts(),
            register_agent=RegisterAgent(agents=agents, commands=commands, bus=bus, clock=clock),
            confirm_epoch=ConfirmEpoch(agents=agents),
            release_agent=ReleaseAgent(agents=agents, bus=bus, clock=clock),
            describe_agent=DescribeAgent(agents=agents, bus=bus, clock=clock),
            record_reports=RecordReports(commands=commands, bus=bus, clock=clock),
            dispatcher=Dispatcher(
                commands, self._channel, self._wakeups, self._handover, bus, clock
            ),
            lifecycle=Lifecycle(),
            room=room,
        )
        self.life.spawn(self._run(), name)

    def kill(self) -> None:
        """End it as SIGKILL does."""
        if self._network.server is self._server:
            self._network.server = None
        self.life.end()

    async def _run(self) -> None:
        await self._agents.release_all(at=self._clock.now())
        async with asyncio.TaskGroup() as tasks:
            AgentNamespace(self._server, self._use_cases, self._channel, tasks)
            self._network.server = self._server
            while True:
                await asyncio.sleep(EXPIRY_INTERVAL_S)
                await self._expire_queued()

    def _bus(self) -> EventBus:
        def changed(event: events.CommandMoved | events.OutputAppended) -> None:
            self._wakeups.notify(command_topic(event.command_id))

        def has_orders(event: events.ControlRequested) -> None:
            self._wakeups.notify(agent_topic(event.agent_id))

        return EventBus(
            {
                events.ControlRequested: [has_orders],
                events.CommandQueued: [self._handover.on_queued],
                events.CommandMoved: [self._handover.on_moved, changed],
                events.OutputAppended: [changed],
            }
        )

    # --- what clients ask -----------------------------------------------------------------

    async def submit(self, wanted: Submission) -> CommandId:
        """A client's POST …/execute."""
        return await self._submit(wanted)

    async def control(self, command_id: CommandId, action: Action) -> Command:
        """A client's POST …/control."""
        return await self._control(a_principal(), command_id, action)

    async def follow(
        self, command_id: CommandId, from_seq: int
    ) -> AsyncGenerator[Chunk | Ended, None]:
        """What a subscriber gets, states aside."""
        async for found in self._follower.follow(command_id, from_seq):
            if isinstance(found, Chunk | Ended):
                yield found
