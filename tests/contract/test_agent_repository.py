"""Every AgentRepository keeps agents and the number of their newest session."""

import asyncio

import pytest

from app.domain.errors import AgentNotFound
from app.domain.events import AgentRegistered
from app.domain.ids import AgentId, SessionId
from app.domain.models.agent import Agent, SshTarget
from tests.builders import DB, NOW, WEB, later, some_facts
from tests.contract.conftest import Storage

FACTS = some_facts(
    executors=("local", "ssh"),
    ssh_enabled=True,
    ssh_target="root@db.example",
    ssh_targets=(SshTarget("db", "root@db.example", {"role": "db"}),),
)


def register(agent: Agent) -> None:
    agent.register(SessionId(f"sid-{agent.epoch + 1}"), FACTS, {"env": "prod"}, at=NOW)


async def test_an_agent_comes_back_as_it_was_stored(storage: Storage) -> None:
    made = await storage.agents.change(WEB, register, create=True)
    assert await storage.agents.get(WEB) == made
    assert made.facts == FACTS
    assert (made.epoch, made.sid, made.labels) == (1, "sid-1", {"env": "prod"})


async def test_the_epoch_that_it_acknowledged_comes_back(storage: Storage) -> None:
    await storage.agents.change(WEB, register, create=True)
    made = await storage.agents.change(WEB, lambda agent: agent.confirm(1))
    assert made.confirmed_epoch == 1
    assert await storage.agents.get(WEB) == made


async def test_a_second_change_changes_the_same_agent(storage: Storage) -> None:
    await storage.agents.change(WEB, register, create=True)
    changed = await storage.agents.change(WEB, register, create=True)
    assert changed.epoch == 2
    assert await storage.agents.all() == [changed]


async def test_an_unknown_agent_is_not_found(storage: Storage) -> None:
    with pytest.raises(AgentNotFound):
        await storage.agents.get(WEB)
    with pytest.raises(AgentNotFound):
        await storage.agents.change(WEB, register)
    with pytest.raises(AgentNotFound):
        await storage.agents.remove(WEB)


async def test_a_change_gives_its_events_to_the_caller_alone(storage: Storage) -> None:
    made = await storage.agents.change(WEB, register, create=True)
    assert made.pull_events() == [AgentRegistered(WEB)]
    assert (await storage.agents.get(WEB)).pull_events() == []


async def test_what_a_change_raises_undoes_it(storage: Storage) -> None:
    def fail(agent: Agent) -> None:
        register(agent)
        raise LookupError("no")

    with pytest.raises(LookupError):
        await storage.agents.change(WEB, fail, create=True)
    assert await storage.agents.all() == []
    made = await storage.agents.change(WEB, register, create=True)
    with pytest.raises(LookupError):
        await storage.agents.change(WEB, fail)
    assert await storage.agents.get(WEB) == made


async def test_nobody_changes_what_is_stored_from_outside(storage: Storage) -> None:
    given = [await storage.agents.change(WEB, register, create=True)]
    given += [await storage.agents.get(WEB), *await storage.agents.all()]
    for agent in given:
        register(agent)
    assert (await storage.agents.change(WEB, lambda stored: None)).epoch == 1


async def test_all_are_sorted_by_id(storage: Storage) -> None:
    for agent_id in (WEB, AgentId("a"), DB):
        await storage.agents.change(agent_id, register, create=True)
    assert [agent.id for agent in await storage.agents.all()] == ["a", DB, WEB]


async def test_two_registrations_at_once_get_two_epochs(storage: Storage) -> None:
    async with asyncio.timeout(20):
        made = await asyncio.gather(
            *(storage.agents.change(WEB, register, create=True) for _ in range(5))
        )
    assert [agent.epoch for agent in made] == [1, 2, 3, 4, 5]


async def test_releasing_all_ends_open_sessions_alone(storage: Storage) -> None:
    await storage.agents.change(WEB, register, create=True)
    await storage.agents.change(DB, register, create=True)
    offline = await storage.agents.change(DB, lambda a: a.release(1, at=later(1)) and None)
    await storage.agents.release_all(at=later(9))
    web = await storage.agents.get(WEB)
    assert (web.is_online, web.last_seen_at, web.epoch) == (False, later(9), 1)
    assert await storage.agents.get(DB) == offline


async def test_a_removed_agent_is_gone_and_starts_anew(storage: Storage) -> None:
    await storage.agents.change(WEB, register, create=True)
    await storage.agents.remove(WEB)
    assert await storage.agents.all() == []
    assert (await storage.agents.change(WEB, register, create=True)).epoch == 1
