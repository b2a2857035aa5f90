"""What waited too long for an agent that did not come is rejected, and nothing else."""

from app.domain.events import CommandMoved
from app.domain.models.states import State
from tests.builders import WEB, a_command, a_command_in, later
from tests.fakes.in_memory_controller import InMemoryController


async def test_only_what_no_agent_can_know_of_expires(controller: InMemoryController) -> None:
    due, early = a_command(), a_command(expires_at=later(61))
    others = [a_command(offered_epoch=1), a_command_in(State.RUNNING)]
    await controller.keep(due, early, *others)
    controller.clock.advance(60)
    assert await controller.expire_queued() == 1
    expired = await controller.commands.get(due.id)
    assert (expired.state, expired.finished_at) == (State.REJECTED, later(60))
    assert controller.events == [CommandMoved(due.id, WEB, later(60), State.REJECTED)]
    for command in (early, *others):
        assert await controller.commands.get(command.id) == command


async def test_nothing_expires_twice(controller: InMemoryController) -> None:
    await controller.keep(a_command(), a_command())
    controller.clock.advance(60)
    assert await controller.expire_queued() == 2
    assert await controller.expire_queued() == 0
