"""Asking for something to be done with a command."""

import pytest

from app.domain.errors import CommandNotFound, Denied, InvalidState
from app.domain.events import CommandMoved, ControlRequested
from app.domain.ids import CommandId
from app.domain.models.states import Action, State
from app.domain.models.user import Role
from ogent.protocol.codec import unpack
from ogent.protocol.messages import ControlOrder
from tests.builders import ALICE, NOW, WEB, a_command, a_command_in, a_principal, an_online_agent
from tests.fakes.in_memory_controller import InMemoryController


async def test_what_is_asked_waits_for_the_agent(controller: InMemoryController) -> None:
    command = a_command_in(State.RUNNING)
    await controller.keep(an_online_agent(), command)
    changed = await controller.control_command(a_principal(), command.id, Action.KILL)
    assert (changed.state, changed.requested_action) == (State.RUNNING, Action.KILL)
    assert controller.events == [ControlRequested(command.id, WEB)]
    (pending,) = await controller.commands.pending_controls(WEB)
    order = ControlOrder.model_validate(unpack(pending.sealed.order))
    assert (order.control_id, order.command_id) == (pending.control_id, command.id)
    assert (order.action, order.agent_id, order.requester) == ("kill", WEB, ALICE)
    assert order.issued_at == NOW < order.expires_at


async def test_what_no_agent_knows_of_is_cancelled_at_once(controller: InMemoryController) -> None:
    command = a_command()
    await controller.keep(an_online_agent(), command)
    changed = await controller.control_command(a_principal(), command.id, Action.CANCEL)
    assert changed.state is State.CANCELLED
    assert controller.events[0] == CommandMoved(command.id, WEB, NOW, State.CANCELLED)
    assert await controller.commands.pending_controls(WEB) == []


async def test_a_command_of_a_deleted_agent_can_be_controlled(
    controller: InMemoryController,
) -> None:
    command = a_command()
    await controller.keep(command)
    changed = await controller.control_command(a_principal(), command.id, Action.CANCEL)
    assert changed.state is State.CANCELLED


@pytest.mark.parametrize(
    ("principal", "action", "error"),
    [
        (a_principal(Role.VIEWER), Action.CANCEL, Denied),
        (a_principal(Role.ADMIN, "env=test"), Action.CANCEL, CommandNotFound),
        (a_principal(), Action.RESUME, InvalidState),
    ],
)
async def test_a_refusal_stores_and_announces_nothing(
    controller: InMemoryController, principal, action: Action, error: type[Exception]
) -> None:
    command = a_command_in(State.RUNNING)
    await controller.keep(an_online_agent(), command)
    with pytest.raises(error):
        await controller.control_command(principal, command.id, action)
    assert await controller.commands.get(command.id) == command
    assert await controller.commands.pending_controls(WEB) == []
    assert controller.events == []


async def test_what_may_not_be_seen_reads_as_what_does_not_exist(
    controller: InMemoryController,
) -> None:
    command = a_command_in(State.RUNNING)
    await controller.keep(an_online_agent(), command)
    stranger = a_principal(Role.ADMIN, "env=test")
    texts = []
    for command_id in (command.id, CommandId("nobody")):
        with pytest.raises(CommandNotFound) as caught:
            await controller.control_command(stranger, command_id, Action.CANCEL)
        texts.append(caught.value.message.replace(command_id, "X"))
    assert texts[0] == texts[1]
