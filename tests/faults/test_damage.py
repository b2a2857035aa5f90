"""A journal or a spool that was cut or has a wrong bit: nothing twice, nothing wrong as right."""

import signal
from collections.abc import Callable, Collection
from pathlib import Path
from random import Random

import pytest

from agent.infrastructure.runner.records import Damage, frames_in
from ogent.client import State
from tests.e2e.gate import Gate
from tests.faults.checker import Checker
from tests.faults.plans import Plan, counting, noise, quick
from tests.faults.promises import Seen
from tests.faults.system import System
from tests.faults.trials import trials

Harm = Callable[[Path, Random], None]


def cut(path: Path, random: Random) -> None:
    """End the file at a random place."""
    with path.open("r+b") as file:
        file.truncate(random.randrange(path.stat().st_size))


def flip(path: Path, random: Random) -> None:
    """Turn one bit over, anywhere in the file."""
    with path.open("r+b") as file:
        at = random.randrange(path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << random.randrange(8)]))


async def held_back(checker: Checker, random: Random, gate: Gate) -> list[str]:
    """Commands whose output and end only the agent's disk has; the last one still runs."""
    system = checker.system
    ends = [counting(system.key(), bursts=30, lines=200, code=3, pause_s=0)]
    ends.append(noise(system.key(), random.randrange(1 << 30), bursts=30, size=9000))
    plans = [Plan(p.key, f"{gate.wait('cut')}; {p.head}; {gate.mark(p.key)}") for p in ends]
    plans.append(Plan(system.key(), f"seq 5000; {gate.wait('go')}; seq 5000; (exit 9)"))
    ids = [await checker.run(plan) for plan in plans]
    for command_id in ids:
        await system.has_started(command_id)
    await system.link.refuse()
    gate.open("cut")
    for plan in ends:
        await gate.reached(plan.key)
    return ids


async def damaged(system: System, files: Collection[Path], damage: Harm, random: Random) -> Path:
    """Kill the agent, damage one file, start it again; the file."""
    await system.stop_agent(signal.SIGKILL)
    victim = random.choice(sorted(path for path in files if path.stat().st_size > 0))
    damage(victim, random)
    system.history.note(f"{damage.__name__} {victim.relative_to(system.agent_data)}")
    return victim


async def go_on(checker: Checker, gate: Gate) -> None:
    checker.system.start_agent()
    await checker.system.link.accept()
    gate.open("go")
    await checker.run(quick(checker.system.key()))


def deviating(seen: list[Seen]) -> list[str]:
    """Commands that show the damage."""
    return [
        one.command_id for one in seen if not one.output_complete or one.exit_code != one.truth.code
    ]


@trials(2)
@pytest.mark.parametrize("damage", [cut, flip])
async def test_a_damaged_spool_costs_at_most_the_output_of_its_command(
    system: System, checker: Checker, random: Random, gate: Gate, damage: Harm, trial: int
) -> None:
    ids = await held_back(checker, random, gate)
    spool = system.agent_data / "spool"
    files = [p for command_id in ids for p in spool.glob(f"{command_id}*")]
    victim = await damaged(system, files, damage, random)
    await go_on(checker, gate)
    owner = next(command_id for command_id in ids if victim.name.startswith(command_id))
    seen = await checker.check({State.LOST}, only={owner})
    assert deviating(seen) == [] or "damaged" in system.agent.service.log


@trials(2)
@pytest.mark.parametrize("damage", [cut, flip])
async def test_a_damaged_journal_starts_nothing_twice(
    system: System, checker: Checker, random: Random, gate: Gate, damage: Harm, trial: int
) -> None:
    ids = await held_back(checker, random, gate)
    journal = system.agent_data / "journal"
    victim = await damaged(system, list(journal.glob("*.log")), damage, random)
    shows = any(isinstance(part, Damage) for part in frames_in(victim.read_bytes()))
    await go_on(checker, gate)
    seen = await checker.check({State.LOST}, only=ids)
    costs = deviating(seen)
    assert damage is cut or len(costs) <= 1, system.history.story()
    log = system.agent.service.log
    assert costs == [] or not shows or "is damaged" in log or "not whole" in log
