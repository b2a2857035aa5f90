"""A stop is a stop: whatever the tree does, and with no controller there."""

import asyncio
import signal
from random import Random

from ogent.client import State
from tests.e2e.services import until
from tests.faults.checker import Checker
from tests.faults.plans import DEAF_SLEEPERS, Plan, deaf_tree
from tests.faults.processes import left_of
from tests.faults.system import System
from tests.faults.trials import some_moment, trials

#: What a user is promised; and the controller's and our own time to see it.
GONE_WITHIN_S = 10.0


async def grown(system: System, command_id: str, plan: Plan) -> None:
    """Return once every process of the tree is there."""
    await until(lambda: len(left_of(command_id, plan.key)) > DEAF_SLEEPERS)
    system.history.note(f"the tree of {plan.key} is there")


@trials(1)
async def test_a_deaf_tree_with_orphans_of_no_environment_is_gone_after_a_cancel(
    system: System, checker: Checker, trial: int
) -> None:
    plan = deaf_tree(system.key())
    command_id = await checker.run(plan, readers=True)
    await grown(system, command_id, plan)
    async with asyncio.timeout(GONE_WITHIN_S):
        await system.control(command_id, "cancel")
        await system.finished(command_id)
        assert left_of(command_id, plan.key) == []
    await checker.check()


@trials(1)
async def test_a_deaf_tree_is_gone_at_its_deadline_although_the_controller_is_dead(
    system: System, checker: Checker, trial: int
) -> None:
    plan = deaf_tree(system.key(), timeout_s=2)
    command_id = await checker.run(plan)
    await grown(system, command_id, plan)
    await system.stop_controller(signal.SIGKILL)
    async with asyncio.timeout(2 + GONE_WITHIN_S):
        await until(lambda: left_of(command_id, plan.key) == [])
    system.history.note("the tree is gone")
    await system.start_controller()
    await checker.check()


@trials(1)
async def test_a_deaf_tree_is_gone_at_its_deadline_although_agent_and_controller_are_dead(
    system: System, checker: Checker, trial: int
) -> None:
    plan = deaf_tree(system.key(), timeout_s=2)
    command_id = await checker.run(plan)
    await grown(system, command_id, plan)
    await system.stop_controller(signal.SIGKILL)
    await system.stop_agent(signal.SIGKILL)
    async with asyncio.timeout(2 + GONE_WITHIN_S):
        await until(lambda: left_of(command_id, plan.key) == [])
    system.start_agent()
    await system.start_controller()
    await checker.check()


@trials(1)
async def test_nothing_of_a_deaf_tree_is_left_when_its_dead_runner_makes_it_lost(
    system: System, checker: Checker, trial: int
) -> None:
    plan = deaf_tree(system.key())
    command_id = await checker.run(plan)
    await grown(system, command_id, plan)
    await system.kill_runner()
    seen = await checker.check({State.LOST})
    assert [one.state for one in seen] == [State.LOST], system.history.story()


@trials(2)
async def test_a_cancel_is_carried_out_whatever_dies_beside_it(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    plan = deaf_tree(system.key())
    command_id = await checker.run(plan)
    await grown(system, command_id, plan)
    await system.control(command_id, "cancel")
    await some_moment(random, 0.3)
    await random.choice([system.kill_controller, system.kill_agent, system.cut_link])()
    await checker.check()
