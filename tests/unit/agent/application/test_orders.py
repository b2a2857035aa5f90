import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from agent.application.ports.controller_link import HostFacts
from agent.application.use_cases.accept_order import AcceptOrder
from agent.application.use_cases.control_execution import ControlExecution
from agent.application.use_cases.resume_session import Registered, ResumePoint, ResumeSession
from agent.domain.errors import AgentStopping, OrderExpired, UnknownCommand, WrongAgent
from agent.domain.ids import AgentId, CommandId, ControlId
from agent.domain.models.execution import State
from agent.domain.models.executor import Impulse
from agent.domain.models.order import Action, Control
from agent.domain.models.output import Position
from tests.fakes.agent_ports import HERE, NOW, AgentCore, C, an_order, settle

FACTS = HostFacts(
    platform="Linux", version="6", python="3.11", hostname="web", agent_version="1", executors=[]
)


@pytest.fixture
async def core() -> AsyncIterator[AgentCore]:
    core = AgentCore()
    async with asyncio.timeout(20), core.supervisor:
        yield core
        await core.end_all()


@pytest.fixture
def accept(core: AgentCore) -> AcceptOrder:
    return AcceptOrder(
        agent_id=HERE, journal=core.journal, supervisor=core.supervisor, time=core.time
    )


@pytest.fixture
def control(core: AgentCore) -> ControlExecution:
    return ControlExecution(agent_id=HERE, journal=core.journal, supervisor=core.supervisor)


@pytest.fixture
def resume(core: AgentCore) -> ResumeSession:
    return ResumeSession(
        agent_id=HERE,
        facts=FACTS,
        labels={"role": "web"},
        journal=core.journal,
        delivery=core.delivery,
        supervisor=core.supervisor,
        time=core.time,
    )


def a_control(action: Action, **changes: str) -> Control:
    return Control(
        id=ControlId("k"),
        command_id=CommandId(changes.get("command_id", "c")),
        agent_id=AgentId(changes.get("agent_id", HERE)),
        action=action,
        expires_at=NOW,
    )


async def test_an_order_is_in_the_journal_before_its_process_starts(
    core: AgentCore, accept: AcceptOrder
) -> None:
    assert await accept(an_order()) is State.ACCEPTED
    assert await core.journal.state_of(C) is State.ACCEPTED
    assert core.executor.processes == {}
    await settle()
    assert list(core.executor.processes) == [C]


async def test_the_order_of_a_known_command_runs_nothing(
    core: AgentCore, accept: AcceptOrder
) -> None:
    await accept(an_order())
    await settle()
    first = core.process()
    assert await accept(an_order(command="something else")) is State.RUNNING
    await settle()
    assert core.process() is first


async def test_an_order_that_is_accepted_twice_at_once_runs_once(
    core: AgentCore, accept: AcceptOrder
) -> None:
    known = core.journal.state_of

    async def slow(command_id: CommandId) -> State | None:
        state = await known(command_id)
        await asyncio.sleep(0)
        return state

    core.journal.state_of = slow  # type: ignore[method-assign]
    states = await asyncio.gather(accept(an_order()), accept(an_order()))
    assert states == [State.ACCEPTED] * 2
    assert len(core.delivery.held()) == 1


async def test_an_order_for_another_agent_is_refused(accept: AcceptOrder) -> None:
    with pytest.raises(WrongAgent):
        await accept(an_order(agent_id=AgentId("other")))


async def test_expiry_is_judged_by_the_controllers_time(
    core: AgentCore, accept: AcceptOrder
) -> None:
    core.time.tell(NOW + timedelta(days=1))
    with pytest.raises(OrderExpired):
        await accept(an_order())
    assert await core.journal.state_of(C) is None
    core.time.tell(NOW - timedelta(days=1))
    await core.clock.advance(120)
    assert await accept(an_order()) is State.ACCEPTED


async def test_a_stopping_agent_refuses_and_stores_nothing(
    core: AgentCore, accept: AcceptOrder
) -> None:
    await core.supervisor.stop()
    with pytest.raises(AgentStopping):
        await accept(an_order())
    assert await core.journal.state_of(C) is None


async def test_a_control_reaches_its_execution(
    core: AgentCore, accept: AcceptOrder, control: ControlExecution
) -> None:
    await accept(an_order())
    await settle()
    assert await control(a_control(Action.KILL)) is State.RUNNING
    await settle()
    assert Impulse.KILL in core.process().impulses
    await core.clock.advance(1)
    assert await control(a_control(Action.KILL)) is State.CANCELLED  # a repeat


async def test_a_control_that_is_not_for_us_is_refused(control: ControlExecution) -> None:
    with pytest.raises(WrongAgent):
        await control(a_control(Action.KILL, agent_id="other"))
    with pytest.raises(UnknownCommand):
        await control(a_control(Action.KILL))


async def test_a_registration_names_what_is_held(
    core: AgentCore, accept: AcceptOrder, resume: ResumeSession
) -> None:
    await accept(an_order())
    registration = await resume.registration()
    assert [held.command_id for held in registration.held] == [C]
    assert (registration.last_epoch, registration.labels) == (0, {"role": "web"})


async def test_the_answer_sets_epoch_time_and_places_and_ends_what_is_dropped(
    core: AgentCore, accept: AcceptOrder, resume: ResumeSession
) -> None:
    await accept(an_order("a"))
    await accept(an_order("b"))
    await settle()
    points = [
        ResumePoint(CommandId("a"), Position(), is_dropped=True),
        ResumePoint(CommandId("b"), Position(3, 3, 0), is_dropped=False),
    ]
    later = NOW + timedelta(hours=1)
    places = await resume(Registered(7, later, points))
    await settle()
    assert places == {"b": Position(3, 3, 0)}
    assert (await core.journal.epoch(), core.time.now()) == (7, later)
    assert Impulse.TERMINATE in core.process("a").impulses
    assert [held.command_id for held in core.delivery.held()] == ["b"]
