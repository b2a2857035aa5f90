"""Sessions open and end, and what is lost when an agent comes back without it."""

import pytest

from app.domain.errors import AgentNotFound
from app.domain.events import AgentChanged, AgentRegistered, AgentReleased, CommandMoved
from app.domain.ids import CommandId
from app.domain.models.output import OutputTotals
from app.domain.models.states import Action, State
from tests.builders import (
    DB,
    NOW,
    WEB,
    a_command,
    a_command_in,
    a_principal,
    a_session,
    an_online_agent,
    chunks_of,
    some_facts,
)
from tests.fakes.in_memory_controller import InMemoryController


async def test_a_registration_opens_the_next_session(controller: InMemoryController) -> None:
    first = await controller.register(WEB)
    second = await controller.register(WEB, role="web")
    agent = await controller.agents.get(WEB)
    assert (first.epoch, second.epoch) == (1, 2)
    assert (agent.sid, agent.epoch, agent.labels) == (second.sid, 2, {"role": "web"})
    assert controller.events == [AgentRegistered(WEB)] * 2


@pytest.mark.parametrize("state", [State.DISPATCHED, State.RUNNING, State.PAUSED])
async def test_what_the_agent_took_and_does_not_hold_is_lost(
    controller: InMemoryController, state: State
) -> None:
    command = a_command_in(state)
    await controller.keep(command)
    await controller.register(WEB, last_epoch=5)
    lost = await controller.commands.get(command.id)
    assert lost.state is State.LOST
    assert lost.failure is not None
    assert lost.failure.code == "agent_state_lost"
    assert CommandMoved(command.id, WEB, NOW, State.LOST) in controller.events


async def test_what_the_agent_holds_is_in_its_journal(controller: InMemoryController) -> None:
    command = a_command(offered_epoch=1)
    await controller.keep(command)
    await controller.register(WEB, command.id, last_epoch=1)
    assert (await controller.commands.get(command.id)).state is State.DISPATCHED
    assert CommandMoved(command.id, WEB, NOW, State.DISPATCHED) in controller.events


@pytest.mark.parametrize("action", [Action.CANCEL, Action.KILL])
async def test_what_never_arrived_and_is_to_be_stopped_is_cancelled_not_started(
    controller: InMemoryController, action: Action
) -> None:
    stopped, other = a_command(offered_epoch=1), a_command(offered_epoch=1)
    await controller.keep(an_online_agent(), stopped, other)
    await controller.control_command(a_principal(), stopped.id, action)
    await controller.register(WEB, last_epoch=1)
    assert (await controller.commands.get(stopped.id)).state is State.CANCELLED
    assert CommandMoved(stopped.id, WEB, NOW, State.CANCELLED) in controller.events
    assert await controller.commands.pending_controls(WEB) == []
    runs = await controller.commands.queued_runs(WEB, after=None, limit=9)
    assert [run.command_id for run in runs] == [other.id]


@pytest.mark.parametrize(("is_held", "state"), [(True, State.DISPATCHED), (False, State.LOST)])
async def test_what_may_have_arrived_and_is_to_be_stopped_is_not_called_cancelled(
    controller: InMemoryController, is_held: bool, state: State
) -> None:
    command = a_command(offered_epoch=2)
    await controller.keep(an_online_agent(), command)
    await controller.control_command(a_principal(), command.id, Action.CANCEL)
    await controller.register(WEB, *([command.id] if is_held else []), last_epoch=1)
    assert (await controller.commands.get(command.id)).state is state


@pytest.mark.parametrize("state", [State.DISPATCHED, State.RUNNING, State.PAUSED])
async def test_what_the_agent_holds_goes_on(controller: InMemoryController, state: State) -> None:
    command = a_command_in(state)
    await controller.keep(command)
    await controller.register(WEB, command.id)
    assert await controller.commands.get(command.id) == command


@pytest.mark.parametrize(
    ("offered_epoch", "last_epoch", "is_lost"),
    [
        (None, 0, False),
        (3, 3, False),
        (3, 4, False),
        (3, 2, True),  # restored from an older copy, or the one that was copied
        (1, 0, True),  # wiped
        (1, 2**62 + 1, True),  # made up
    ],
)
async def test_a_queued_one_is_lost_only_if_the_journal_does_not_reach_back_to_its_offer(
    controller: InMemoryController, offered_epoch: int | None, last_epoch: int, is_lost: bool
) -> None:
    command = a_command(offered_epoch=offered_epoch)
    await controller.keep(command)
    await controller.register(WEB, last_epoch=last_epoch)
    found = await controller.commands.get(command.id)
    assert found.state is (State.LOST if is_lost else State.QUEUED)


async def test_a_controller_that_was_restored_hands_out_no_epoch_again(
    controller: InMemoryController,
) -> None:
    command = a_command(offered_epoch=3)
    await controller.keep(command)
    session = await controller.register(WEB, last_epoch=41)
    assert session.epoch == 42
    assert (await controller.register(WEB, last_epoch=42)).epoch == 43
    assert (await controller.commands.get(command.id)).state is State.QUEUED


async def test_other_agents_and_final_commands_are_left_alone(
    controller: InMemoryController,
) -> None:
    commands = [a_command_in(State.RUNNING, agent_id=DB), a_command_in(State.SUCCEEDED)]
    await controller.keep(*commands)
    await controller.register(WEB)
    assert [await controller.commands.get(command.id) for command in commands] == commands


async def test_the_agent_is_told_from_where_to_go_on(controller: InMemoryController) -> None:
    running, final = a_command_in(State.RUNNING), a_command_in(State.SUCCEEDED)
    foreign = a_command_in(State.RUNNING, agent_id=DB)
    await controller.keep(running, final, foreign)
    session = await controller.register(WEB, running.id)
    await controller.report(session, running.id, *chunks_of(b"one", b"two"))
    held = {running.id, final.id, foreign.id, CommandId("unknown")}
    registered = await controller.register_agent(controller.registration(WEB, *held, last_epoch=1))
    assert registered.server_time == NOW
    points = {point.command_id: point for point in registered.resume}
    assert set(points) == held
    assert points[running.id].stored == OutputTotals(2, 6, 0)
    assert [key for key, point in points.items() if not point.is_dropped] == [running.id]


async def test_an_ended_session_leaves_its_commands_alone(controller: InMemoryController) -> None:
    command = a_command_in(State.RUNNING)
    await controller.keep(command)
    session = await controller.register(WEB, command.id)
    await controller.release_agent(session)
    assert not (await controller.agents.get(WEB)).is_online
    assert await controller.commands.get(command.id) == command
    assert controller.events[-1] == AgentReleased(WEB)


async def test_an_old_sessions_end_does_not_take_the_agent_off_line(
    controller: InMemoryController,
) -> None:
    old = await controller.register(WEB)
    new = await controller.register(WEB)
    await controller.release_agent(old)
    assert (await controller.agents.get(WEB)).sid == new.sid
    assert AgentReleased(WEB) not in controller.events


async def test_releasing_a_deleted_agent_is_harmless(controller: InMemoryController) -> None:
    await controller.release_agent(a_session())
    assert controller.events == []


async def test_changed_facts_are_stored_and_told(controller: InMemoryController) -> None:
    session = await controller.register(WEB)
    await controller.describe_agent(session, some_facts(hostname="new"))
    assert (await controller.agents.get(WEB)).facts.hostname == "new"
    assert controller.events[-1] == AgentChanged(WEB)


async def test_facts_of_an_older_session_are_ignored(controller: InMemoryController) -> None:
    old = await controller.register(WEB)
    await controller.register(WEB)
    await controller.describe_agent(old, some_facts(hostname="new"))
    assert (await controller.agents.get(WEB)).facts.hostname != "new"
    assert AgentChanged(WEB) not in controller.events


async def test_facts_of_a_deleted_agent_are_refused(controller: InMemoryController) -> None:
    with pytest.raises(AgentNotFound):
        await controller.describe_agent(a_session(), some_facts())


async def acknowledged(controller: InMemoryController, sessions: int) -> None:
    """The agent has had so many sessions, and has every one of them on its disk."""
    for epoch in range(sessions):
        session = await controller.register(WEB, last_epoch=epoch)
        await controller.confirm_epoch(session)


@pytest.mark.parametrize("last_epoch", [1, 0, 2**62 + 1])  # restored or copied, wiped, made up
async def test_what_an_older_data_folder_holds_is_lost_and_dropped(
    controller: InMemoryController, last_epoch: int
) -> None:
    await acknowledged(controller, 2)
    states = [State.QUEUED, State.DISPATCHED, State.RUNNING, State.PAUSED]
    offered = [a_command_in(state) for state in states]
    new, foreign = a_command(), a_command_in(State.RUNNING, agent_id=DB)
    await controller.keep(*offered, new, foreign)
    held = [command.id for command in offered]
    wanted = controller.registration(WEB, *held, last_epoch=last_epoch)
    registered = await controller.register_agent(wanted)
    assert registered.is_older_copy
    assert {point.command_id: point.is_dropped for point in registered.resume} == dict.fromkeys(
        held, True
    )
    for command_id in held:
        lost = await controller.commands.get(command_id)
        assert lost.failure is not None
        assert (lost.state, lost.failure.code) == (State.LOST, "agent_state_lost")
    assert await controller.commands.get(new.id) == new
    assert await controller.commands.get(foreign.id) == foreign


async def test_an_older_data_folder_has_nothing_that_was_queued_cancelled_or_offered_again(
    controller: InMemoryController,
) -> None:
    await acknowledged(controller, 3)
    command = a_command(offered_epoch=1)
    await controller.keep(command)
    await controller.control_command(a_principal(), command.id, Action.CANCEL)
    await controller.register(WEB, last_epoch=2)
    assert (await controller.commands.get(command.id)).state is State.LOST


async def test_a_session_that_was_never_acknowledged_makes_no_older_data_folder(
    controller: InMemoryController,
) -> None:
    await acknowledged(controller, 2)
    await controller.register(WEB, last_epoch=2)
    command = a_command_in(State.RUNNING)
    await controller.keep(command)
    wanted = controller.registration(WEB, command.id, last_epoch=2)
    registered = await controller.register_agent(wanted)
    assert not registered.is_older_copy
    assert [point.is_dropped for point in registered.resume] == [False]
    assert await controller.commands.get(command.id) == command


async def test_a_late_acknowledgement_takes_back_no_newer_one(
    controller: InMemoryController,
) -> None:
    await acknowledged(controller, 2)
    await controller.confirm_epoch(a_session(1))
    assert (await controller.agents.get(WEB)).confirmed_epoch == 2


async def test_once_it_has_acknowledged_an_older_data_folder_is_as_good_as_any(
    controller: InMemoryController,
) -> None:
    await acknowledged(controller, 3)
    session = await controller.register(WEB, last_epoch=1)
    await controller.confirm_epoch(session)
    wanted = controller.registration(WEB, last_epoch=session.epoch)
    assert not (await controller.register_agent(wanted)).is_older_copy
