"""A whole controller without doors: the real use cases over the adapters in memory."""

from datetime import timedelta
from typing import get_args

from app.application.dispatcher import Dispatcher
from app.application.event_bus import EventBus
from app.application.follower import Follower
from app.application.handover import Handover
from app.application.ports.wakeups import agent_topic, command_topic
from app.application.use_cases.control_command import ControlCommand
from app.application.use_cases.expire_finished import ExpireFinished
from app.application.use_cases.expire_queued import ExpireQueued
from app.application.use_cases.manage_tokens import ManageTokens
from app.application.use_cases.manage_users import ChangeOwnPassword, ManageUsers
from app.application.use_cases.queries import Queries
from app.application.use_cases.read_output import ReadOutput
from app.application.use_cases.record_reports import RecordReports, Report
from app.application.use_cases.register_agent import ConfirmEpoch, RegisterAgent, Registration
from app.application.use_cases.release_agent import DescribeAgent, ReleaseAgent
from app.application.use_cases.sign_in import Authenticate, SignIn
from app.application.use_cases.submit_command import Submission, SubmitCommand
from app.domain.events import (
    CommandMoved,
    CommandQueued,
    ControlRequested,
    Event,
    OutputAppended,
)
from app.domain.ids import AgentId, CommandId, IdSource, SessionId
from app.domain.models.agent import Agent, Session
from app.domain.models.command import Command
from app.domain.models.command_line import CommandLine
from app.domain.models.user import User
from app.infrastructure.in_memory_room import InMemoryRoom
from app.infrastructure.in_process_wakeups import InProcessWakeups
from app.infrastructure.re2_filter import compile_filter
from app.infrastructure.repositories.in_memory_agent_repository import InMemoryAgentRepository
from app.infrastructure.repositories.in_memory_command_repository import InMemoryCommandRepository
from app.infrastructure.repositories.in_memory_output_log import InMemoryOutputLog
from app.infrastructure.repositories.in_memory_user_repository import InMemoryUserRepository
from app.infrastructure.security.unsigned_sealer import UnsignedSealer
from tests.builders import SEALED, WEB, a_principal, some_facts
from tests.fakes.fake_security import FakeHasher, FakeTokens, RecordingAttempts
from tests.fakes.manual_clock import ManualClock
from tests.fakes.recording_agent_channel import RecordingAgentChannel

MAX_OUTPUT_BYTES = 1 << 30


class InMemoryController:
    """Use cases, and under them the adapters; `events` lists all that was published."""

    def __init__(self, store: type[InMemoryCommandRepository] = InMemoryCommandRepository) -> None:
        self.clock, self.new_id = ManualClock(), IdSource()
        self.agents, self.output = InMemoryAgentRepository(), InMemoryOutputLog()
        self.commands = store(self.agents, self.output)
        self.users, self.wakeups = InMemoryUserRepository(), InProcessWakeups()
        self.hasher, self.attempts = FakeHasher(), RecordingAttempts()
        self.tokens = FakeTokens(self.clock)
        self.channel = RecordingAgentChannel()
        self.events: list[Event] = []
        self.handover, self.room = Handover(), InMemoryRoom()
        self.bus = EventBus({kind: [self.events.append, self._ring] for kind in get_args(Event)})
        self._dispatch()
        self._accounts()

    def _dispatch(self) -> None:
        agents, commands, bus, clock = self.agents, self.commands, self.bus, self.clock
        self.submit_command = SubmitCommand(
            agents=agents,
            commands=commands,
            room=self.room,
            sealer=UnsignedSealer(),
            handover=self.handover,
            bus=bus,
            clock=clock,
            new_id=self.new_id,
            max_output_bytes=MAX_OUTPUT_BYTES,
        )
        self.control_command = ControlCommand(
            agents=agents,
            commands=commands,
            sealer=UnsignedSealer(),
            bus=bus,
            clock=clock,
            new_id=self.new_id,
        )
        self.register_agent = RegisterAgent(agents=agents, commands=commands, bus=bus, clock=clock)
        self.confirm_epoch = ConfirmEpoch(agents=agents)
        self.release_agent = ReleaseAgent(agents=agents, bus=bus, clock=clock)
        self.describe_agent = DescribeAgent(agents=agents, bus=bus, clock=clock)
        self.record_reports = RecordReports(commands=commands, bus=bus, clock=clock)
        self.expire_queued = ExpireQueued(commands=commands, bus=bus, clock=clock)
        self.expire_finished = ExpireFinished(
            commands=commands, clock=clock, kept_for=timedelta(days=30)
        )
        self.queries = Queries(agents=agents, commands=commands, output=self.output, clock=clock)
        self.read_output = ReadOutput(
            queries=self.queries, output=self.output, compile_filter=compile_filter
        )
        self.follower = Follower(commands, self.output, self.wakeups)
        self.dispatcher = Dispatcher(
            commands, self.channel, self.wakeups, self.handover, bus, clock
        )

    def _accounts(self) -> None:
        users, hasher, clock = self.users, self.hasher, self.clock
        self.sign_in = SignIn(
            users=users, hasher=hasher, tokens=self.tokens, attempts=self.attempts
        )
        self.authenticate = Authenticate(users=users, tokens=self.tokens, clock=clock)
        self.manage_users = ManageUsers(users=users, hasher=hasher, clock=clock)
        self.manage_tokens = ManageTokens(users=users, clock=clock, new_id=self.new_id)
        self.change_own_password = ChangeOwnPassword(users=users, hasher=hasher)

    def _ring(self, event: Event) -> None:
        if isinstance(event, CommandQueued):
            self.handover.on_queued(event)
        elif isinstance(event, ControlRequested):
            self.wakeups.notify(agent_topic(event.agent_id))
        elif isinstance(event, CommandMoved | OutputAppended):
            if isinstance(event, CommandMoved):
                self.handover.on_moved(event)
            self.wakeups.notify(command_topic(event.command_id))

    def registration(
        self, agent_id: AgentId = WEB, *held: CommandId, last_epoch: int = 0, **labels: str
    ) -> Registration:
        """What an agent says when it connects."""
        return Registration(
            agent_id=agent_id,
            sid=SessionId(f"sid-{self.new_id()}"),
            facts=some_facts(),
            labels=labels or {"env": "prod"},
            last_epoch=last_epoch,
            held=frozenset(held),
        )

    async def register(
        self, agent_id: AgentId = WEB, *held: CommandId, last_epoch: int = 0, **labels: str
    ) -> Session:
        """An agent's next session."""
        wanted = self.registration(agent_id, *held, last_epoch=last_epoch, **labels)
        return (await self.register_agent(wanted)).session

    async def submit(self, text: str = "echo hi", **wanted: object) -> CommandId:
        """A command's id; by an operator for WEB, unless told otherwise."""
        values = {"principal": a_principal(), "agent_id": WEB, "line": CommandLine(text), **wanted}
        return await self.submit_command(Submission(**values))  # type: ignore[arg-type]

    async def keep(self, *things: Command | Agent | User) -> None:
        """Store aggregates as they are."""
        for thing in things:
            if isinstance(thing, Command):
                await self.commands.add(thing, SEALED)
            elif isinstance(thing, User):
                await self.users.add(thing)
            else:
                await self._keep_agent(thing)

    async def _keep_agent(self, wanted: Agent) -> None:
        def take(agent: Agent) -> None:
            agent.epoch, agent.sid, agent.connected_at = wanted.epoch, wanted.sid, None
            agent.labels, agent.facts = wanted.labels, wanted.facts

        await self.agents.change(wanted.id, take, create=True)

    async def report(self, session: Session, command_id: CommandId, *reports: Report) -> None:
        """What an agent says of a command, all at once."""
        await self.record_reports(session, command_id, reports)
