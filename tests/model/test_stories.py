"""Stories that the model once found, each as short as it was told, and how they end now."""

from collections.abc import Iterator

import pytest

from app.domain.models.states import Action, State
from tests.model.host import Loss, Nature
from tests.model.promises import BrokenPromise, Promises
from tests.model.world import Fault, World

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def submitted(world: World, count: int = 1) -> None:
    for _ in range(count):
        world.submit(world.wish(Nature.MILD))
    world.loop.advance(0.5)


def states(world: World) -> list[State]:
    return [command.state for command in world.commands]


def test_the_end_is_heard_of_a_command_whose_start_waited_for_the_next_runner(
    world: World,
) -> None:
    submitted(world, 3)  # two run, one waits
    world.host.disk.stall()
    world.host.exit(world.live_trees()[0], 0, None)
    world.loop.run()
    world.kill_runner()
    world.heal()
    world.end_processes()
    assert states(world) == [State.SUCCEEDED, State.LOST, State.FAILED]
    Promises(world).check_end()


@pytest.mark.parametrize("steps", range(30))
def test_a_cancel_that_meets_the_runners_death_does_not_turn_in_circles(steps: int) -> None:
    world = World()
    submitted(world)
    world.control(world.wishes[0], Action.CANCEL)
    world.loop.run(steps)
    world.kill_runner()
    world.loop.advance(10)
    assert states(world) == [State.LOST]
    world.close()


def test_nothing_starts_again_by_a_runners_memory_that_a_loss_of_power_brought_back(
    world: World,
) -> None:
    world.kill_agent()
    world.loop.advance(10)  # the idle runner ends, and leaves its memory
    world.start_agent()
    world.loop.advance(1)
    submitted(world)
    world.lose_power(Loss.ALL)
    world.heal()
    assert states(world) == [State.LOST]
    Promises(world).check()


def test_what_a_runner_started_and_lost_with_the_power_is_not_rejected(world: World) -> None:
    submitted(world)
    world.kill_controller()
    world.host.exit(world.live_trees()[0], 0, None)
    world.loop.advance(1)
    world.kill_agent()
    world.loop.advance(70)  # the idle runner leaves its memory; the order's time passes
    world.lose_power(Loss.ALL)
    world.heal()
    (command,) = world.commands
    assert (command.state, command.failure and command.failure.code) == (
        State.LOST,
        "agent_state_lost",
    )


def test_a_broken_promise_tells_its_story(world: World) -> None:
    submitted(world)
    world.host.starts[world.commands[0].id] += 1
    with pytest.raises(BrokenPromise, match=r"(?s)1\. \[.*a client submits c1.*at most once"):
        Promises(world).check()
    assert not world.has_had(*Fault)
