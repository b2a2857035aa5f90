"""What may be read, and by whom."""

import pytest

from app.application.ports.repositories import CommandFilter
from app.application.use_cases.queries import TAIL_MAX_BYTES
from app.domain.errors import AgentNotFound, CommandNotFound, Denied
from app.domain.ids import AgentId, CommandId
from app.domain.models.output import Stream
from app.domain.models.selector import Selector
from app.domain.models.states import State
from app.domain.models.user import Principal, Role
from tests.builders import (
    DB,
    WEB,
    a_command,
    a_command_in,
    a_principal,
    an_agent,
    an_online_agent,
    chunks_of,
)
from tests.fakes.in_memory_controller import InMemoryController

ALL = Selector()
VIEWER = a_principal(Role.VIEWER)
NARROW = a_principal(Role.ADMIN, "env=prod")


@pytest.fixture
async def fleet(controller: InMemoryController) -> InMemoryController:
    """WEB is on line and in production; DB is neither."""
    await controller.keep(
        an_online_agent(labels={"env": "prod"}), an_agent(id=DB, labels={"env": "test"})
    )
    return controller


async def ids(
    controller: InMemoryController, principal: Principal, wanted: CommandFilter | None = None
) -> list[CommandId]:
    page = await controller.queries.see_commands(
        principal, wanted or CommandFilter(), before=None, limit=10
    )
    return [command.id for command in page.commands]


@pytest.mark.parametrize(
    ("principal", "selector", "is_online", "found"),
    [
        (VIEWER, "", None, [DB, WEB]),
        (VIEWER, "", True, [WEB]),
        (VIEWER, "", False, [DB]),
        (VIEWER, "env=test", None, [DB]),
        (VIEWER, "env=test", True, []),
        (NARROW, "", None, [WEB]),
        (NARROW, "env=test", None, []),
    ],
)
async def test_agents_are_those_that_one_may_see_and_wants(
    fleet: InMemoryController, principal, selector: str, is_online: bool | None, found: list
) -> None:
    seen = await fleet.queries.see_agents(
        principal, selector=Selector.parse(selector), is_online=is_online
    )
    assert [one.agent.id for one in seen] == found


async def test_an_agent_tells_how_many_of_its_commands_are_unfinished(
    fleet: InMemoryController,
) -> None:
    await fleet.keep(a_command(), a_command_in(State.PAUSED), a_command_in(State.FAILED))
    seen = await fleet.queries.see_agents(VIEWER, selector=ALL)
    assert [one.running for one in seen] == [0, 2]
    assert (await fleet.queries.see_agent(VIEWER, WEB)).running == 2


async def test_an_agent_out_of_sight_reads_as_one_that_does_not_exist(
    fleet: InMemoryController,
) -> None:
    for agent_id in (DB, AgentId("nobody")):
        with pytest.raises(AgentNotFound) as caught:
            await fleet.queries.see_agent(NARROW, agent_id)
        assert caught.value.message == f"there is no agent {agent_id}"
    assert (await fleet.queries.see_agent(NARROW, WEB)).agent.id == WEB


async def test_a_command_out_of_sight_reads_as_one_that_does_not_exist(
    fleet: InMemoryController,
) -> None:
    mine, other, gone = a_command(), a_command(agent_id=DB), a_command(agent_id=AgentId("gone"))
    await fleet.keep(mine, other, gone)
    for command_id in (other.id, gone.id, CommandId("nobody")):
        with pytest.raises(CommandNotFound) as caught:
            await fleet.queries.see_command(NARROW, command_id)
        assert caught.value.message == f"there is no command {command_id}"
    assert await fleet.queries.see_command(NARROW, mine.id) == mine
    assert await fleet.queries.see_command(VIEWER, gone.id) == gone


async def test_lists_hold_what_one_may_see(fleet: InMemoryController) -> None:
    mine, other = a_command(), a_command(agent_id=DB)
    await fleet.keep(mine, other)
    assert await ids(fleet, VIEWER) == [other.id, mine.id]
    assert await ids(fleet, NARROW) == [mine.id]
    assert await ids(fleet, NARROW, CommandFilter(agent_ids=[DB])) == []
    assert await ids(fleet, NARROW, CommandFilter(agent_ids=[DB, WEB])) == [mine.id]


@pytest.mark.parametrize(("limit", "sizes"), [(2, [2, 2, 1]), (5, [5]), (4, [4, 1]), (9, [5])])
async def test_pages_follow_each_other_to_the_end(
    fleet: InMemoryController, limit: int, sizes: list[int]
) -> None:
    await fleet.keep(*(a_command() for _ in range(5)))
    before, found, pages = None, [], []
    while before is not None or not pages:
        page = await fleet.queries.see_commands(VIEWER, CommandFilter(), before=before, limit=limit)
        pages.append(len(page.commands))
        found += [command.id for command in page.commands]
        before = page.next_before
    assert pages == sizes
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 5


async def test_an_agents_account_reads_nothing(fleet: InMemoryController) -> None:
    agent, command = a_principal(Role.AGENT), a_command()
    await fleet.keep(command)
    with pytest.raises(Denied):
        await fleet.queries.see_agents(agent, selector=ALL)
    with pytest.raises(Denied):
        await fleet.queries.see_agent(agent, WEB)
    with pytest.raises(Denied):
        await fleet.queries.see_command(agent, command.id)
    with pytest.raises(Denied):
        await ids(fleet, agent)


async def test_tails_are_the_end_of_each_stream(controller: InMemoryController) -> None:
    await controller.queries.require_storage()
    command = a_command_in(State.RUNNING)
    await controller.keep(command)
    long = chunks_of(b"lost", b"x" * TAIL_MAX_BYTES, (Stream.STDERR, b"err"))
    session = await controller.register(WEB, command.id)
    await controller.report(session, command.id, *long)
    tails = await controller.queries.tails(await controller.commands.get(command.id))
    assert tails.stdout == b"x" * TAIL_MAX_BYTES
    assert tails.stderr == b"err"


async def test_a_command_that_wrote_nothing_has_empty_tails(
    controller: InMemoryController,
) -> None:
    tails = await controller.queries.tails(a_command())
    assert (tails.stdout, tails.stderr) == (b"", b"")


async def test_an_agent_is_online_while_it_has_a_session(controller: InMemoryController) -> None:
    session = await controller.register(WEB)
    assert await controller.queries.is_online(WEB)
    await controller.release_agent(session)
    assert not await controller.queries.is_online(WEB)
