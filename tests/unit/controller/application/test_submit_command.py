"""Accepting a command: stored, announced and ready to be sent, or nothing at all."""

import asyncio

import pytest

from app.application.ports.repositories import CommandFilter
from app.application.use_cases import submit_command
from app.application.use_cases.submit_command import Submission
from app.domain.errors import (
    AgentNotFound,
    AgentOffline,
    Denied,
    IdempotencyConflict,
    TooManyCommands,
)
from app.domain.events import CommandQueued
from app.domain.ids import AgentId, SessionId
from app.domain.models.agent import Session
from app.domain.models.command_line import CommandLine
from app.domain.models.states import State
from app.domain.models.user import Role
from ogent.protocol.codec import unpack
from ogent.protocol.messages import RunOrder
from tests.builders import (
    ALICE,
    DB,
    NOW,
    WEB,
    a_command,
    a_command_in,
    a_principal,
    an_agent,
    an_online_agent,
    later,
    some_facts,
)
from tests.fakes.in_memory_controller import MAX_OUTPUT_BYTES, InMemoryController


async def test_a_submission_is_stored_and_announced(controller: InMemoryController) -> None:
    await controller.keep(an_online_agent(epoch=7))
    session = Session(WEB, SessionId("sid"), 7)
    with controller.handover.receiving(session, lambda run: None):
        command_id = await controller.submit("ls", timeout_s=2.5)
    command = await controller.commands.get(command_id)
    assert (command.text, command.requester, command.state) == ("ls", ALICE, State.QUEUED)
    assert (command.created_at, command.expires_at, command.timeout_s) == (NOW, later(60), 2.5)
    assert (command.offered_epoch, command.max_output_bytes) == (7, MAX_OUTPUT_BYTES)
    (run,) = await controller.commands.queued_runs(WEB, after=None, limit=9)
    assert controller.events == [CommandQueued(command_id, WEB, run)]


async def test_before_its_session_is_served_an_agent_cannot_know_of_a_command(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_online_agent(epoch=7))
    command = await controller.commands.get(await controller.submit("ls"))
    assert command.offered_epoch is None


async def test_the_order_says_exactly_what_was_asked(controller: InMemoryController) -> None:
    await controller.keep(an_online_agent())
    line = CommandLine("ls", {"A": "b"}, "/tmp", "input")
    command_id = await controller.submit(line=line, timeout_s=2.5, execution_target="ssh:db")
    (run,) = await controller.commands.queued_runs(WEB, after=None, limit=9)
    order = RunOrder.model_validate(unpack(run.sealed.order))
    assert (order.command_id, order.agent_id, order.command) == (command_id, WEB, "ls")
    assert (order.env, order.cwd, order.stdin) == ({"A": "b"}, "/tmp", "input")
    assert (order.execution_target, order.timeout, order.requester) == ("ssh:db", 2.5, ALICE)
    assert (order.issued_at, order.expires_at) == (NOW, later(60))
    assert order.max_output_bytes == MAX_OUTPUT_BYTES


async def test_auto_is_resolved_when_the_command_is_accepted(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_online_agent(facts=some_facts(ssh_target="me@there")))
    command = await controller.commands.get(await controller.submit())
    assert command.execution_target == "ssh"


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"agent_id": AgentId("nobody")}, AgentNotFound),
        ({"principal": a_principal(Role.VIEWER)}, Denied),
        ({"principal": a_principal(Role.AGENT)}, Denied),
        ({"principal": a_principal(Role.ADMIN, "env=test")}, AgentNotFound),
        ({"agent_id": AgentId("away")}, AgentOffline),
    ],
)
async def test_a_refusal_stores_and_announces_nothing(
    controller: InMemoryController, wanted: dict[str, object], error: type[Exception]
) -> None:
    await controller.keep(an_online_agent(), an_agent(id=AgentId("away")))
    with pytest.raises(error):
        await controller.submit(**wanted)
    assert await controller.commands.page(CommandFilter(), before=None, limit=9) == []
    assert controller.events == []


@pytest.mark.parametrize(
    ("wanted", "seconds"),
    [
        ({}, 60),
        ({"may_wait": True}, 24 * 3600),
        ({"expires_in_s": 5.0}, 5),
        ({"may_wait": True, "expires_in_s": 5.0}, 5),
    ],
)
async def test_the_start_is_bounded(
    controller: InMemoryController, wanted: dict[str, object], seconds: float
) -> None:
    await controller.keep(an_online_agent())
    command = await controller.commands.get(await controller.submit(**wanted))
    assert command.expires_at == later(seconds)


async def test_a_command_may_wait_for_an_agent_that_is_away(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_agent())
    command = await controller.commands.get(await controller.submit(may_wait=True))
    assert (command.state, command.offered_epoch) == (State.QUEUED, None)


async def test_a_repeat_gets_the_first_command_and_announces_nothing(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_online_agent())
    first = await controller.submit("ls", idempotency_key="once")
    controller.events.clear()
    assert await controller.submit("ls", idempotency_key="once") == first
    assert controller.events == []
    assert len(await controller.commands.standings(WEB)) == 1


async def test_a_used_key_with_another_request_is_a_conflict(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_online_agent())
    await controller.submit("ls", idempotency_key="once", fingerprint="this")
    with pytest.raises(IdempotencyConflict):
        await controller.submit("ls", idempotency_key="once", fingerprint="that")


async def test_two_users_may_use_the_same_key(controller: InMemoryController) -> None:
    await controller.keep(an_online_agent())
    first = await controller.submit(idempotency_key="once")
    bob = a_principal(name="bob")
    assert await controller.submit(principal=bob, idempotency_key="once") != first


@pytest.mark.parametrize("is_online", [False, True])
async def test_an_agent_has_a_bounded_queue_also_while_it_is_on_line(
    controller: InMemoryController, monkeypatch: pytest.MonkeyPatch, is_online: bool
) -> None:
    monkeypatch.setattr(submit_command, "WAITING_MAX", 2)
    await controller.keep(an_online_agent() if is_online else an_agent())
    await controller.keep(an_agent(id=DB), a_command(agent_id=DB), a_command_in(State.RUNNING))
    first, _ = [await controller.submit(may_wait=True) for _ in range(2)]
    controller.events.clear()
    with pytest.raises(TooManyCommands, match="2 commands wait for agent web-1"):
        await controller.submit(may_wait=True, idempotency_key="once")
    assert controller.events == []
    await controller.commands.change(first, lambda command: command.acknowledge(at=NOW))
    await controller.submit(may_wait=True, idempotency_key="once")


async def test_a_repeat_needs_no_place_in_the_queue(
    controller: InMemoryController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit_command, "WAITING_MAX", 1)
    await controller.keep(an_online_agent())
    first = await controller.submit(idempotency_key="once")
    assert await controller.submit(idempotency_key="once") == first


async def test_a_repeat_is_answered_whatever_would_refuse_it_if_it_were_the_first(
    controller: InMemoryController, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await controller.register(WEB)
    first = await controller.submit("ls", idempotency_key="once")
    await controller.release_agent(session)
    assert await controller.submit("ls", idempotency_key="once") == first
    controller.room.is_there = False
    assert await controller.submit("ls", idempotency_key="once") == first
    monkeypatch.setattr(submit_command, "WAITING_MAX", 0)
    assert await controller.submit("ls", idempotency_key="once", may_wait=True) == first
    assert len(await controller.commands.standings(WEB)) == 1


async def test_a_conflict_is_said_whatever_else_would_refuse_it(
    controller: InMemoryController,
) -> None:
    session = await controller.register(WEB)
    await controller.submit("ls", idempotency_key="once", fingerprint="this")
    await controller.release_agent(session)
    with pytest.raises(IdempotencyConflict):
        await controller.submit("ls", idempotency_key="once", fingerprint="that")


async def test_a_repeat_is_no_way_around_the_rights(controller: InMemoryController) -> None:
    await controller.keep(an_online_agent())
    await controller.submit("ls", idempotency_key="once")
    with pytest.raises(Denied):
        await controller.submit("ls", principal=a_principal(Role.VIEWER), idempotency_key="once")


async def test_whether_it_is_a_repeat_can_be_asked_without_submitting(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_online_agent())
    wanted = Submission(
        principal=a_principal(), agent_id=WEB, line=CommandLine("ls"), idempotency_key="once"
    )
    assert await controller.submit_command.first_of(wanted) is None
    assert (await controller.commands.standings(WEB), controller.events) == ([], [])
    first = await controller.submit_command(wanted)
    assert await controller.submit_command.first_of(wanted) == first


async def test_of_two_of_the_same_at_once_the_second_announces_nothing(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_online_agent())
    same = [controller.submit("ls", idempotency_key="once") for _ in range(2)]
    first, second = await asyncio.gather(*same)
    assert first == second
    assert [type(event) for event in controller.events] == [CommandQueued]
