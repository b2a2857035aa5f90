"""subscribe_command: every chunk once and in order, however late and however often."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import played, taken

Open = Callable[..., Any]


def seqs(socket: Any) -> list[int]:
    return [payload["seq"] for payload in socket.all("command_progress")]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_late_subscriber_gets_everything_then_the_result(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent, transport: str
) -> None:
    command_id = await played(admin, agent, *[b"%d\n" % i for i in range(50)])
    socket = await open_socket(transport=transport)
    answer = await socket.ok("subscribe_command", {"command_id": command_id})
    shapes.check(answer, {"ok": True, "state": "succeeded", "next_seq": 50})
    shapes.check(await socket.hears("command_result"), shapes.RESULT)
    assert seqs(socket) == list(range(50))
    assert socket.heard[-1][0] == "command_result"
    text = "".join(payload["data"] for payload in socket.all("command_progress"))
    assert text == "".join(f"{i}\n" for i in range(50))


async def test_a_live_subscriber_gets_each_chunk_once_in_order(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    sockets = [await open_socket() for _ in range(3)]
    for number in range(100):
        if number % 40 == 0:
            socket = sockets[number // 40]
            await socket.ok("subscribe_command", {"command_id": run.command_id})
        await run.write(b"%d\n" % number, "stderr" if number % 3 else "stdout")
    await run.end()
    for socket in sockets:
        await socket.hears("command_result")
        assert seqs(socket) == list(range(100))


async def test_from_seq_begins_there(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent, *[b"%d\n" % i for i in range(10)])
    for start, expected in ((7, [7, 8, 9]), (10, []), (10**18, [])):
        socket = await open_socket()
        await socket.ok("subscribe_command", {"command_id": command_id, "from_seq": start})
        await socket.hears("command_result")
        assert seqs(socket) == expected


async def test_whoever_reconnects_goes_on_from_the_next_seq(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    found: list[int] = []
    for round_ in range(4):
        socket = await open_socket()
        wanted = {"command_id": run.command_id, "from_seq": len(found)}
        await socket.ok("subscribe_command", wanted)
        for _ in range(5):
            await run.write(b"x\n")
        await socket.hears("command_progress", count=3)
        await socket.disconnect()
        await run.write(b"while it was away\n")
        found += seqs(socket)
        assert round_ >= 0
    await run.end()
    socket = await open_socket()
    await socket.ok("subscribe_command", {"command_id": run.command_id, "from_seq": len(found)})
    await socket.hears("command_result")
    assert found + seqs(socket) == list(range(24))


async def test_a_second_subscription_replaces_the_first(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"zero")
    await run.write(b"one")
    socket = await open_socket()
    await socket.ok("subscribe_command", {"command_id": run.command_id, "from_seq": 1})
    await socket.hears("command_progress", seq=1)
    await socket.ok("subscribe_command", {"command_id": run.command_id, "from_seq": 1})
    await socket.hears("command_progress", count=2, seq=1)
    await run.end()
    await socket.hears("command_result")
    assert (seqs(socket), len(socket.all("command_result"))) == ([1, 1], 1)


async def test_an_unsubscribed_socket_hears_no_more(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    leaving, staying = await open_socket(), await open_socket()
    for socket in (leaving, staying):
        await socket.ok("subscribe_command", {"command_id": run.command_id})
        await socket.hears("command_state", state="running")
    assert await leaving.ok("unsubscribe_command", {"command_id": run.command_id}) == {"ok": True}
    await run.write(b"unheard")
    await run.end()
    await staying.hears("command_result")
    await leaving.ok("unsubscribe_command", {"command_id": run.command_id})
    assert not leaving.all("command_progress") + leaving.all("command_result")


async def test_a_command_is_followed_to_its_end_past_its_agents_absence(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    socket = await open_socket()
    await socket.ok("subscribe_command", {"command_id": run.command_id})
    await run.write(b"before")
    await run.stored()
    await agent.disconnect()
    await agent.connect()
    held = {"command_id": run.command_id, "state": "running", "next_seq": 1}
    await agent.register(resume=[held])
    await run.write(b"after")
    await run.end()
    result = await socket.hears("command_result")
    assert (result["result"]["stdout"], seqs(socket)) == ("beforeafter", [0, 1])


async def test_states_are_told_once_each_also_paused_and_running_again(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    socket = await open_socket()
    await socket.ok("execute_command", {"agent_id": "web-1", "command": "a"})
    run = await agent.execution()
    await run.start()
    await socket.hears("command_state", state="running")
    await run.state("paused")
    await socket.hears("command_state", state="paused")
    await run.state("running")
    await socket.hears("command_state", count=2, state="running")
    await run.end()
    await socket.hears("command_result")
    states = [payload["state"] for payload in socket.all("command_state")]
    assert states == ["queued", "dispatched", "running", "paused", "running", "succeeded"]


async def test_a_socket_follows_so_many_commands_and_says_when_it_is_too_many(
    open_socket: Open, agent: ProtocolAgent
) -> None:
    socket = await open_socket()
    answers = []
    for number in range(65):
        wanted = {"agent_id": "web-1", "command": f"c{number}"}
        answers.append(await socket.call("execute_command", wanted))
    assert [a["ok"] for a in answers] == [True] * 64 + [False]
    assert answers[-1]["error"]["code"] == "too_many_subscriptions"
    freed = answers[0]["command_id"]
    await socket.ok("unsubscribe_command", {"command_id": freed})
    await socket.ok("execute_command", {"agent_id": "web-1", "command": "again"})


async def test_sockets_that_left_leave_no_task_behind(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    watcher = await open_socket()
    await watcher.ok("subscribe_command", {"command_id": run.command_id})
    kept = _follows()
    for _ in range(5):
        socket = await open_socket()
        await socket.ok("subscribe_command", {"command_id": run.command_id})
        await socket.ok("subscribe_agents", {})
        await socket.hears("agent_status")
        await socket.disconnect()
    ending = _follows() - kept
    async with asyncio.timeout(20):
        await asyncio.gather(*ending, return_exceptions=True)
    assert len(ending) <= 15
    assert _follows() == kept


def _follows() -> set[asyncio.Task[object]]:
    """What the controller runs for sockets, by the name that it gives such tasks."""
    return {task for task in asyncio.all_tasks() if task.get_name().startswith("client ")}
