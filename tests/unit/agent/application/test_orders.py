import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from agent.application.ports.controller_link import HostFacts
from agent.application.ports.journal import Known
from agent.application.use_cases.accept_order import AcceptOrder
from agent.application.use_cases.control_execution import ControlExecution
from agent.application.use_cases.report_status import ReportStatus
from agent.application.use_cases.resume_session import Registered, ResumePoint, ResumeSession
from agent.domain.errors import AgentStopping, NoRoom, OrderExpired, UnknownCommand, WrongAgent
from agent.domain.ids import AgentId, CommandId, ControlId
from agent.domain.models.execution import State
from agent.domain.models.order import Action, Control, Order
from agent.domain.models.output import Position
from agent.domain.stopping import Force
from tests.fakes.agent_ports import HERE, NOW, RUNNER, AgentCore, C, an_order, settle

KILLED = (State.CANCELLED, Force.KILL)
ASKED = (State.CANCELLED, Force.ASK)

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


async def test_an_order_is_in_the_journal_with_who_starts_it_before_it_starts(
    core: AgentCore, accept: AcceptOrder
) -> None:
    core.executor.gate.clear()
    assert await accept(an_order()) == Known(State.ACCEPTED, is_held=True)
    assert core.journal.stored == [f"accept c {RUNNER}"]
    assert core.executor.started == []
    core.executor.gate.set()
    await settle()
    assert core.executor.started == [C]


async def test_the_order_of_a_known_command_runs_nothing(
    core: AgentCore, accept: AcceptOrder
) -> None:
    await accept(an_order())
    await settle()
    known = await accept(an_order(command="something else"))
    assert known == Known(State.RUNNING, is_held=True)
    await settle()
    assert core.executor.started == [C]


async def test_the_order_of_a_command_that_is_done_with_says_so(
    core: AgentCore, accept: AcceptOrder
) -> None:
    await accept(an_order())
    await settle()
    core.process().end()
    await settle()
    await core.outcomes()
    assert await accept(an_order()) == Known(State.EXITED, is_held=False)
    assert core.executor.started == [C]


async def test_an_order_that_is_accepted_twice_at_once_runs_once(
    core: AgentCore, accept: AcceptOrder
) -> None:
    store = core.journal.accept

    async def slow(order: Order, *, keeper: str | None, now: datetime) -> bool:
        await asyncio.sleep(0)
        return await store(order, keeper=keeper, now=now)

    core.journal.accept = slow  # type: ignore[method-assign]
    answers = await asyncio.gather(accept(an_order()), accept(an_order()))
    assert answers[0].is_held and answers[1].is_held
    await settle()
    assert (len(core.delivery.held()), core.executor.started) == (1, [C])


async def test_an_order_that_cannot_be_stored_is_refused_and_takes_no_place(
    core: AgentCore, accept: AcceptOrder
) -> None:
    core.journal.is_full = True
    for _ in range(3):
        with pytest.raises(NoRoom, match="the disk is full"):
            await accept(an_order())
    core.journal.is_full = False
    await accept(an_order())
    await accept(an_order("d"))
    await settle()
    assert core.executor.started == [C, "d"]


async def test_an_order_whose_session_ends_while_it_is_stored_is_run(
    core: AgentCore, accept: AcceptOrder
) -> None:
    stored = asyncio.Event()
    store = core.journal.accept

    async def slow(order: Order, *, keeper: str | None, now: datetime) -> bool:
        await stored.wait()
        return await store(order, keeper=keeper, now=now)

    core.journal.accept = slow  # type: ignore[method-assign]
    accepting = asyncio.create_task(accept(an_order()))
    await settle()
    accepting.cancel()
    await asyncio.wait({accepting})
    stored.set()
    await settle()
    assert core.executor.started == [C]


async def test_an_order_for_another_agent_is_refused(accept: AcceptOrder) -> None:
    with pytest.raises(WrongAgent):
        await accept(an_order(agent_id=AgentId("other")))


async def test_expiry_is_judged_by_the_controllers_time(
    core: AgentCore, accept: AcceptOrder
) -> None:
    core.time.tell(NOW + timedelta(days=1))
    with pytest.raises(OrderExpired):
        await accept(an_order())
    assert core.journal.known(C) is None
    core.time.tell(NOW - timedelta(days=1))
    await core.clock.advance(120)
    assert (await accept(an_order())).state is State.ACCEPTED


async def test_a_stopping_agent_refuses_and_stores_nothing(
    core: AgentCore, accept: AcceptOrder
) -> None:
    await core.supervisor.stop()
    with pytest.raises(AgentStopping):
        await accept(an_order())
    assert core.journal.known(C) is None


async def test_a_control_reaches_its_execution(
    core: AgentCore, accept: AcceptOrder, control: ControlExecution
) -> None:
    await accept(an_order())
    await settle()
    assert await control(a_control(Action.KILL)) is State.RUNNING
    await settle()
    assert await control(a_control(Action.KILL)) is State.CANCELLED  # a repeat
    assert core.process().asked == [KILLED]


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
    assert core.process("a").asked == [ASKED]
    assert [held.command_id for held in core.delivery.held()] == ["b"]


async def test_a_command_that_the_controller_drops_while_it_runs_is_stopped_and_forgotten(
    core: AgentCore, accept: AcceptOrder, resume: ResumeSession
) -> None:
    await accept(an_order())
    await settle()
    core.process().obeys = False
    await resume(Registered(7, NOW, [ResumePoint(C, Position(), is_dropped=True)]))
    assert (core.delivery.held(), core.spool.forgotten) == ([], [])
    core.process().end(stopped_as=State.CANCELLED)
    await settle()
    assert core.spool.forgotten == [C]
    assert core.journal.known(C) == Known(State.CANCELLED, is_held=False)
    assert list(core.supervisor.running) == []


async def test_the_status_names_what_runs_and_then_what_waits(
    core: AgentCore, accept: AcceptOrder
) -> None:
    for name in "abc":
        await accept(an_order(name))
    await settle()
    report = ReportStatus(agent_id=HERE, supervisor=core.supervisor, delivery=core.delivery)
    status = report()
    assert (status.agent_id, status.is_connected) == (HERE, False)
    assert [(c.command_id, c.state, c.started_at) for c in status.commands] == [
        ("a", State.RUNNING, NOW),
        ("b", State.RUNNING, NOW),
        ("c", State.ACCEPTED, None),
    ]
