"""Full disks: what is on disk stays, what is not waits, and all goes on when there is room."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ogent.client import State
from ogent.client.errors import StorageFull
from tests.e2e.gate import Gate
from tests.e2e.services import until
from tests.faults.checker import Checker, watching
from tests.faults.conftest import NewSystem
from tests.faults.disks import SmallDisk, failing_syncs, small_disk_in
from tests.faults.plans import Plan, counting, quick, streaming
from tests.faults.system import System
from tests.faults.trials import some_moment

MIB = 1024 * 1024
#: 23 MB on a disk of 8: it fits only while the link carries it away.
LOUD = "seq 3000000; (exit 4)"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk_in(tmp_path / "disk", 8) as made:
        yield made


@pytest.fixture
def larger_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk_in(tmp_path / "disk", 24) as made:
        yield made


async def test_output_that_fills_the_agents_disk_waits_for_room(
    disk: SmallDisk, new_system: NewSystem
) -> None:
    system = await new_system(agent_settings={"DATA_DIR": str(disk.data_dir)})
    async with watching(system) as checker:
        command_id = await checker.run(Plan(system.key(), LOUD), readers=True)
        await system.has_started(command_id)
        await system.link.refuse()
        await until(lambda: disk.free_bytes < 2 * MIB)
        system.history.note("the agent's disk is full, or nearly")
        await system.link.accept()
        await checker.check()


async def test_a_full_disk_of_the_agent_costs_no_command(
    disk: SmallDisk, new_system: NewSystem, random: Random
) -> None:
    system = await new_system(agent_settings={"DATA_DIR": str(disk.data_dir)})
    async with watching(system) as checker:
        await checker.run(streaming(system.key(), random), readers=True)
        await some_moment(random, 0.5)
        disk.fill()
        system.history.note("the agent's disk is full")
        for _ in range(3):
            await checker.run(quick(system.key()))
        await some_moment(random, 3)
        disk.make_room()
        system.history.note("there is room")
        await checker.check()


async def test_an_agent_that_is_killed_on_a_full_disk_costs_no_command(
    disk: SmallDisk, new_system: NewSystem, random: Random, gate: Gate
) -> None:
    system = await new_system(agent_settings={"DATA_DIR": str(disk.data_dir)})
    async with watching(system) as checker:
        line = f"seq 10000; {gate.wait('go')}; seq 300000; (exit 3)"
        await system.has_started(await checker.run(Plan(system.key(), line), readers=True))
        disk.fill()
        gate.open("go")
        await system.kill_agent()
        await checker.run(quick(system.key()))
        await some_moment(random, 3)
        disk.make_room()
        system.history.note("there is room")
        await checker.check()


async def test_a_full_disk_of_the_controller_costs_no_byte(
    larger_disk: SmallDisk, new_system: NewSystem, random: Random
) -> None:
    system = await new_system(controller_settings={"DATA_DIR": str(larger_disk.data_dir)})
    async with watching(system) as checker:
        plan = counting(system.key(), bursts=100, lines=6000, code=5)
        await checker.run(plan, readers=True)
        await some_moment(random, 0.5)
        larger_disk.fill(MIB)
        await until(lambda: larger_disk.free_bytes < MIB // 16)
        system.history.note("the controller's disk is full")
        await some_moment(random, 3)
        larger_disk.make_room()
        system.history.note("there is room")
        await checker.check()


async def test_below_min_free_bytes_the_controller_takes_nothing_and_loses_nothing(
    larger_disk: SmallDisk, new_system: NewSystem, random: Random, gate: Gate
) -> None:
    settings = {"DATA_DIR": str(larger_disk.data_dir), "MIN_FREE_BYTES": str(6 * MIB)}
    system = await new_system(controller_settings=settings)
    async with watching(system) as checker:
        line = f"seq 1000; {gate.wait('full')}; seq 200000; {gate.mark('written')}; (exit 6)"
        await system.has_started(await checker.run(Plan(system.key(), line), readers=True))
        larger_disk.fill(5 * MIB)
        await system.refuses(StorageFull)
        gate.open("full")
        await gate.reached("written")
        await some_moment(random, 2)
        assert larger_disk.free_bytes > 4 * MIB
        larger_disk.make_room()
        system.history.note("there is room")
        await checker.run(quick(system.key()))
        await checker.check()


async def test_an_order_is_not_taken_by_an_agent_whose_disk_keeps_nothing(
    system: System, checker: Checker, tmp_path: Path
) -> None:
    plan, log = quick(system.key()), tmp_path / "calls"
    async with failing_syncs(system.agent.service.pid, log):
        system.history.note("no fsync of the agent succeeds")
        command_id = await checker.run(plan)
        await until(lambda: "INJECTED" in log.read_text() or system.starts_of(plan.key) > 0)
        await some_moment(Random(1), 1)
        assert system.starts_of(plan.key) == 0, system.history.story()
        assert await system.state_of(command_id) in {State.QUEUED, State.REJECTED}
    await checker.check({State.REJECTED})
