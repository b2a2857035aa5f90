"""The agents' door: who comes in, sessions and their epochs, and what reports change."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import engineio
import httpx2
import pytest
import socketio
from socketio.msgpack_packet import MsgPackPacket

from app.settings import Settings
from tests.fakes.protocol_agent import (
    SOCKET_PATH,
    Execution,
    ProtocolAgent,
    now,
    willing,
)
from tests.integration.controller import shapes
from tests.integration.controller.commands import leave, reaches, seen, submit, taken
from tests.integration.controller.installation import Installation, Running, client, serving

Open = Callable[..., Any]
UPGRADE = f"{SOCKET_PATH}/?EIO=4&transport=websocket"
RESPONSE = {
    "status": "success",
    "agent_id": str,
    "epoch": int,
    "server_time": shapes.TIME,
    "dispatch_keys": [str],
    "resume": [
        {
            "command_id": str,
            "next_seq": int,
            "stdout_bytes": int,
            "stderr_bytes": int,
            "drop": bool,
        }
    ],
}
RESULT_ACK = {
    "ok": bool,
    "error": shapes.Maybe(shapes.ERROR),
    "next_seq": int,
    "stdout_bytes": int,
    "stderr_bytes": int,
}


def of(controller: Running, agent_id: str = "web-1", instance_id: str = "") -> ProtocolAgent:
    token = controller.installation.agents[agent_id]
    return ProtocolAgent(controller.url, token, agent_id, instance_id)


# --- who comes in ------------------------------------------------------------------------------


async def test_the_door_is_shut_without_an_agents_token_before_anything_is_read(
    controller: Running,
) -> None:
    for token in (None, "nonsense", controller.installation.users["admin"]):
        async with client(controller.url, token) as http:
            for path in (UPGRADE, f"{SOCKET_PATH}/?EIO=4&transport=polling"):
                shapes.check_problem(await http.get(path), 401, "unauthorized")


async def test_a_websocket_is_refused_with_401_as_well(controller: Running) -> None:
    agent = ProtocolAgent(controller.url, controller.installation.users["admin"], "web-1")
    with pytest.raises(socketio.exceptions.ConnectionError):
        await agent.connect()
    await agent.disconnect()


async def test_an_unknown_protocol_is_refused(controller: Running) -> None:
    agent = of(controller)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await agent.connect(protocol=2)
    await agent.disconnect()


async def test_polling_is_not_offered_to_agents(controller: Running) -> None:
    async with client(controller.url, controller.installation.agents["web-1"]) as http:
        answer = await http.get(f"{SOCKET_PATH}/?EIO=4&transport=polling")
    assert answer.status_code == 400


async def test_who_the_agent_is_follows_from_its_token(
    controller: Running, vera: httpx2.AsyncClient
) -> None:
    agent = of(controller)
    await agent.connect()
    agent.agent_id = "somebody-else"
    response = await agent.register()
    assert response["agent_id"] == "web-1"
    assert [a["agent_id"] for a in (await vera.get("/agents")).json()] == ["web-1"]
    await agent.disconnect()


async def test_a_deleted_account_opens_the_door_no_more(
    controller: Running, admin: httpx2.AsyncClient
) -> None:
    assert (await admin.delete("/users/agents")).status_code == 204
    async with client(controller.url, controller.installation.agents["web-1"]) as http:
        shapes.check_problem(await http.get(UPGRADE), 401, "unauthorized")


# --- sessions ----------------------------------------------------------------------------------


async def test_each_registration_raises_the_epoch(controller: Running) -> None:
    agent = of(controller)
    for epoch in (1, 2, 3):
        await agent.connect()
        response = await agent.register()
        shapes.check(response, RESPONSE)
        assert (response["epoch"], response["resume"]) == (epoch, [])
        await agent.disconnect()


async def test_frames_before_registration_and_unknown_ones_are_refused(
    controller: Running,
) -> None:
    agent = of(controller)
    await agent.connect()
    for event, frame, code in (
        ("command_state", {"command_id": "x", "state": "running", "timestamp": now()}, "stale"),
        ("command_result", Execution(agent, "x").result(), "stale_session"),
        ("register", {"agent_id": "web-1"}, "validation_error"),
        ("register", None, "validation_error"),
        ("no_such_event", {}, "unknown_event"),
        ("execute_command", {}, "unknown_event"),
        ("connect", {}, "unknown_event"),
        ("disconnect", {}, "unknown_event"),
        ("*", {}, "unknown_event"),
    ):
        answer = await agent.call(event, frame)
        shapes.check(answer, {"ok": False, "error": shapes.ERROR})
        assert answer["error"]["code"].startswith(code), (event, answer)
    await agent.register()
    await agent.disconnect()


async def test_the_newest_instance_wins_and_the_older_is_told(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    newest = of(controller)
    await newest.connect()
    await newest.register(last_epoch=agent.epoch)
    async with asyncio.timeout(20):
        await agent.superseded.wait()
        await agent.closed.wait()
    command_id = await submit(admin)
    assert (await newest.next_order())["command_id"] == command_id
    assert agent.seen == []
    assert (await admin.get("/agents/web-1")).json()["status"] == "online"
    await newest.disconnect()


async def test_the_same_instance_that_comes_back_is_not_superseded(
    controller: Running, agent: ProtocolAgent
) -> None:
    again = of(controller, instance_id=agent.instance_id)
    await again.connect()
    await again.register(last_epoch=agent.epoch)
    async with asyncio.timeout(20):
        await agent.closed.wait()
    assert not agent.superseded.is_set()
    await again.disconnect()


async def test_the_end_of_an_old_session_leaves_the_new_one_online(
    controller: Running, open_socket: Open, agent: ProtocolAgent
) -> None:
    watcher = await open_socket()
    await watcher.ok("subscribe_agents")
    await watcher.hears("agent_status", kind="full")
    newest = of(controller)
    await newest.connect()
    await newest.register(last_epoch=agent.epoch)
    async with asyncio.timeout(20):
        await agent.closed.wait()
    await newest.call("agent_info", {"platform": "last"})  # invalid, but in order
    state = (await watcher.hears("agent_connected"))["status"]
    assert (state, watcher.all("agent_disconnected")) == ("online", [])
    await newest.disconnect()


async def test_an_agent_gets_orders_only_after_it_took_its_epoch(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    await leave(controller, agent)
    command_id = await submit(admin, queue=True)
    forgetful = of(controller)
    forgetful.takes_epochs = False
    await forgetful.connect()
    frame = {"agent_id": "web-1", "agent_info": {}, "last_epoch": 0}
    assert (await forgetful.call("register", frame | {"agent_info": INFO_OF_NONE}))["ok"]
    await forgetful.call("agent_info", INFO_OF_NONE)
    assert forgetful.seen == []
    await forgetful.disconnect()
    await agent.connect()
    await agent.register()
    assert (await agent.next_order())["command_id"] == command_id


@pytest.mark.parametrize(
    "answer",
    [False, None, "yes", {}, {"ok": 1}, {"ok": False, "error": {"code": "x", "message": "full"}}],
    ids=repr,
)
async def test_an_agent_that_does_not_take_its_epoch_gets_nothing_and_loses_nothing(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent, answer: object
) -> None:
    await leave(controller, agent)
    waiting = await submit(admin, queue=True)
    agent.epoch_answer = answer
    await agent.connect()
    await agent.register()
    async with asyncio.timeout(20):
        await agent.closed.wait()
    assert agent.seen == []
    agent.epoch_answer = {"ok": True}
    await agent.connect()
    await agent.register()  # its last epoch is the one before
    assert (await agent.next_order())["command_id"] == waiting


async def test_an_agent_with_an_older_data_folder_is_told_to_drop_what_it_holds(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    older_epoch = agent.epoch - 1
    command_id = await submit(admin)
    await agent.next_order()
    await reaches(admin, command_id, "dispatched")
    await leave(controller, agent)
    await agent.connect()
    held = [{"command_id": command_id, "state": "dispatched", "next_seq": 0}]
    response = await agent.register(last_epoch=older_epoch, resume=held)
    assert [(point["command_id"], point["drop"]) for point in response["resume"]] == [
        (command_id, True)
    ]
    command = await seen(admin, command_id)
    assert (command["state"], command["error"]["code"]) == ("lost", "agent_state_lost")


INFO_OF_NONE = {
    "platform": "",
    "version": "",
    "python": "",
    "hostname": "",
    "agent_version": "",
    "executors": [],
}


class OldSession:
    """A session whose WebSocket goes on speaking after the controller has ended it."""

    def __init__(self, engine: engineio.AsyncClient) -> None:
        self.engine = engine

    async def emit(self, event: str, frame: dict[str, Any]) -> None:
        packet = MsgPackPacket(2, data=[event, frame], namespace="/")
        await self.engine.send(packet.encode())


@asynccontextmanager
async def old_session(controller: Running) -> AsyncIterator[OldSession]:
    engine = engineio.AsyncClient()
    packets: asyncio.Queue[Any] = asyncio.Queue()

    async def on_message(data: bytes) -> None:
        await packets.put(MsgPackPacket(encoded_packet=data))

    engine.on("message", on_message)
    token = controller.installation.agents["web-1"]
    headers = {"Authorization": f"Bearer {token}"}
    await engine.connect(
        controller.url, headers=headers, engineio_path=SOCKET_PATH, transports=["websocket"]
    )
    auth = {"instance_id": uuid.uuid4().hex, "protocol": 1}
    await engine.send(MsgPackPacket(0, data=auth, namespace="/").encode())
    frame = {"agent_id": "web-1", "agent_info": INFO_OF_NONE, "last_epoch": 0}
    await engine.send(MsgPackPacket(2, data=["register", frame], namespace="/").encode())
    async with asyncio.timeout(20):
        while "registration_response" not in ((packet := await packets.get()).data or ()):
            pass
    await engine.send(MsgPackPacket(3, data=[True], id=packet.id, namespace="/").encode())
    yield OldSession(engine)
    await engine.disconnect()


async def test_frames_of_an_older_epoch_change_nothing(
    controller: Running, admin: httpx2.AsyncClient
) -> None:
    async with old_session(controller) as old:
        newest = of(controller)
        await newest.connect()
        await newest.register(last_epoch=1)
        run = await taken(admin, newest)
        stale = Execution(newest, run.command_id)
        chunk = {"seq": 0, "stream": "stdout", "offset": 0, "data": b"stale", "timestamp": now()}
        await old.emit("command_progress", {"command_id": run.command_id, **chunk})
        await old.emit("command_result", stale.result("failed"))
        await run.write(b"good")
        assert (await run.end())["ok"]
        command = await seen(admin, run.command_id)
        assert (command["state"], command["stdout_bytes"]) == ("succeeded", 4)
        await newest.disconnect()


# --- reports -----------------------------------------------------------------------------------


async def test_progress_is_acknowledged_cumulatively_once_it_is_stored(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"four")
    await run.write(b"five!", "stderr")
    ack = await run.stored()
    assert ack == {
        "command_id": run.command_id,
        "next_seq": 2,
        "stdout_bytes": 4,
        "stderr_bytes": 5,
    }


async def test_chunks_keep_the_order_in_which_they_were_sent(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    pieces = [b"%d," % number for number in range(2000)]
    for piece in pieces:
        await run.write(piece)
    shapes.check(await run.end(), RESULT_ACK)
    answer = await admin.get(f"/commands/{run.command_id}/output/stdout")
    assert answer.content == b"".join(pieces)
    assert not agent.closed.is_set()


async def test_a_chunk_that_comes_twice_is_stored_once(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"once")
    await run.send_chunk(0, "stdout", 0, b"once")
    await run.write(b" more")
    await run.end()
    answer = await admin.get(f"/commands/{run.command_id}/output/stdout")
    assert answer.content == b"once more"


async def test_output_beyond_the_order_closes_the_session_and_then_costs_the_command(
    settings: Settings, installation: Installation, data_dir: Path
) -> None:
    small = settings.model_copy(update={"max_output_bytes": 8})
    async with serving(small) as (url, running):
        controller = Running(url, running, installation, data_dir)
        agent = of(controller)
        await agent.connect()
        await agent.register()
        async with controller.http() as admin:
            run = await taken(admin, agent)
            await run.write(b"eight by")
            await run.stored()
            for state, is_dropped in (("running", False), ("lost", True)):
                await run.send_chunk(1, "stderr", 0, b"!")
                async with asyncio.timeout(20):
                    await agent.closed.wait()
                command = await seen(admin, run.command_id)
                assert (command["state"], command["stderr_bytes"]) == (state, 0)
                held = [{"command_id": run.command_id, "state": "running", "next_seq": 2}]
                await agent.disconnect()
                await agent.connect()
                response = await agent.register(resume=held)
                assert [point["drop"] for point in response["resume"]] == [is_dropped]
            assert command["error"]["code"] == "impossible_result"
        await agent.disconnect()


async def test_a_gap_closes_the_session_and_the_next_one_goes_on_from_what_is_stored(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"zero")
    await run.stored()
    await run.send_chunk(2, "stdout", 8, b"two")
    async with asyncio.timeout(20):
        await agent.closed.wait()
    await agent.connect()
    held = {"command_id": run.command_id, "state": "running", "next_seq": 3}
    response = await agent.register(resume=[held])
    shapes.check(response, RESPONSE)
    assert response["resume"] == [
        {
            "command_id": run.command_id,
            "next_seq": 1,
            "stdout_bytes": 4,
            "stderr_bytes": 0,
            "drop": False,
        }
    ]
    await run.write(b"one!")
    await run.write(b"two")
    assert (await run.end())["ok"]
    answer = await admin.get(f"/commands/{run.command_id}/output/stdout")
    assert answer.content == b"zeroone!two"


async def test_a_result_before_its_output_is_incomplete_and_says_what_is_stored(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"zero")
    early = run.result() | {"next_seq": 2, "stdout_bytes": 7, "stdout_stored": 7}
    answer = await agent.call("command_result", early)
    shapes.check(answer, RESULT_ACK)
    assert (answer["ok"], answer["error"]["code"]) == (False, "incomplete")
    assert (answer["next_seq"], answer["stdout_bytes"], answer["stderr_bytes"]) == (1, 4, 0)
    assert (await seen(admin, run.command_id))["state"] == "running"
    await run.write(b"one")
    assert (await run.end())["ok"] is True


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_result_of_other_bytes_is_a_mismatch_and_says_what_is_stored(
    admin: httpx2.AsyncClient, agent: ProtocolAgent, stream: str
) -> None:
    run = await taken(admin, agent)
    await run.write(b"zero")
    await run.write(b"one", "stderr")
    answer = await run.end(**{f"{stream}_digest": hashlib.sha256(b"other").hexdigest()})
    shapes.check(answer, RESULT_ACK)
    assert (answer["ok"], answer["error"]["code"]) == (False, "digest_mismatch")
    assert (answer["next_seq"], answer["stdout_bytes"], answer["stderr_bytes"]) == (2, 4, 3)
    assert (await seen(admin, run.command_id))["state"] == "running"
    assert (await run.end())["ok"] is True


async def test_a_stream_without_a_digest_is_taken_only_where_part_of_it_is_missing(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"zero")
    assert (await run.end(stdout_digest=""))["error"]["code"] == "digest_mismatch"
    gap = {"stream": "stdout", "offset": 4, "length": 6}
    assert (await run.end(stdout_digest="", stdout_bytes=10, missing=[gap]))["ok"] is True
    command = await seen(admin, run.command_id)
    assert (command["output_complete"], command["truncated"]) == (False, True)
    page = (await admin.get(f"/commands/{run.command_id}/output")).json()
    assert page["missing"] == [gap]


async def test_a_result_that_comes_twice_is_acknowledged_and_changes_nothing(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.end("failed", exit_code=1)
    assert (await run.end("succeeded"))["ok"] is True
    command = await seen(admin, run.command_id)
    assert (command["state"], command["exit_code"]) == ("failed", 1)


async def test_a_report_about_another_agents_command_is_refused(
    admin: httpx2.AsyncClient, agent: ProtocolAgent, other_agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    foreign = Execution(other_agent, run.command_id)
    for answer in (await foreign.state("paused"), await foreign.end("failed")):
        assert (answer["ok"], answer["error"]["code"]) == (False, "command_not_found")
    await foreign.write(b"forged")
    assert (await foreign.state("running"))["ok"] is False
    command = await seen(admin, run.command_id)
    assert (command["state"], command["stdout_bytes"]) == ("running", 0)


async def test_a_report_about_no_command_at_all_is_refused(agent: ProtocolAgent) -> None:
    nowhere = Execution(agent, "nowhere")
    assert (await nowhere.state("running"))["error"]["code"] == "command_not_found"
    answer = await nowhere.end()
    shapes.check(answer, RESULT_ACK)
    assert answer["error"]["code"] == "command_not_found"


async def test_reports_that_make_no_sense_are_refused_and_cost_nobody_anything(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    for event, change in (
        ("command_state", {"state": "asleep"}),
        ("command_state", {"timestamp": "yesterday"}),
        ("command_result", {"finished_at": "2026-11-21T05:44:00"}),
        ("command_result", {"finished_at": "0001-01-01T00:00:00+23:59"}),
        ("command_result", {"next_seq": -1}),
        ("command_result", {"exit_code": 2**63}),
        ("command_result", {"stdout_bytes": 2**64 - 1}),
    ):
        answer = await agent.call(event, run.result() | {"timestamp": now()} | change)
        assert answer["ok"] is False, (event, change, answer)
    assert (await seen(admin, run.command_id))["state"] == "running"
    assert (await run.end())["ok"] is True


async def test_a_result_that_is_no_end_leaves_the_command_lost(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    assert (await run.end("running"))["ok"] is True
    assert (await seen(admin, run.command_id))["state"] == "lost"


async def test_a_result_with_started_at_implies_that_it_ran(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await submit(admin)
    run = await agent.execution()
    run.started_at = now()
    await run.end()
    command = await seen(admin, command_id)
    assert (command["state"], command["started_at"]) == ("succeeded", run.started_at)


async def test_an_agent_that_is_away_leaves_its_commands_in_their_state(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await leave(controller, agent)
    assert (await seen(admin, run.command_id))["state"] == "running"


# --- dispatch ----------------------------------------------------------------------------------


async def test_queued_commands_are_sent_in_order_at_registration(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    await leave(controller, agent)
    made = [await submit(admin, queue=True) for _ in range(80)]
    await agent.connect()
    await agent.register()
    found = [(await agent.next_order())["command_id"] for _ in made]
    assert found == made


async def test_commands_that_come_at_once_are_sent_in_the_order_of_their_ids(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    made = await asyncio.gather(*(submit(admin) for _ in range(40)))
    found = [(await agent.next_order())["command_id"] for _ in made]
    assert found == sorted(made)


async def test_what_was_offered_and_not_acknowledged_is_offered_again_once(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    agent.may_answer.clear()
    command_id = await submit(admin)
    await agent.next_order()
    await agent.disconnect()
    await agent.connect()
    await agent.register()
    assert (await agent.next_order())["command_id"] == command_id
    run = Execution(agent, command_id)
    await run.start()
    assert (await run.end())["ok"]
    assert len(agent.seen) == 2


async def test_an_agent_that_lost_its_memory_loses_what_it_had_been_given(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"kept")
    await run.stored()
    agent.may_answer.clear()
    offered = await submit(admin)
    await agent.next_order()
    await leave(controller, agent)
    waiting = await submit(admin, queue=True)
    await agent.connect()
    agent.may_answer.set()
    await agent.register(last_epoch=0)
    for command_id in (run.command_id, offered):
        command = await reaches(admin, command_id, "lost")
        assert command["error"]["code"] == "agent_state_lost"
        assert command["output_complete"] is (command_id == offered)  # that one never began
    assert (await agent.next_order())["command_id"] == waiting
    answer = await admin.get(f"/commands/{run.command_id}/output/stdout")
    assert answer.content == b"kept"
    assert [order["command_id"] for order in agent.seen].count(offered) == 1


async def test_a_copied_folder_pushes_the_first_out_and_loses_what_only_that_one_held(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    agent.may_answer.clear()
    offered = await submit(admin)
    await agent.next_order()
    twin = of(controller)  # made of a copy from before the two commands
    await twin.connect()
    await twin.register(last_epoch=agent.epoch - 1)
    async with asyncio.timeout(20):
        await agent.superseded.wait()
    for command_id in (run.command_id, offered):
        command = await reaches(admin, command_id, "lost")
        assert command["error"]["code"] == "agent_state_lost"
    await submit(admin)
    assert (await twin.next_order())["command_id"] not in (run.command_id, offered)
    await twin.disconnect()


async def test_a_restored_folder_loses_what_it_was_given_before_and_after_the_copy(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    old = await taken(admin, agent)
    await agent.disconnect()
    copied_epoch = agent.epoch
    await agent.connect()
    held = [{"command_id": old.command_id, "state": "running", "next_seq": 0}]
    await agent.register(resume=held)
    new = await taken(admin, agent)
    await agent.disconnect()
    await agent.connect()
    response = await agent.register(last_epoch=copied_epoch, resume=held)
    assert response["epoch"] == 3
    assert [point["drop"] for point in response["resume"]] == [True]
    for run in (old, new):
        command = await reaches(admin, run.command_id, "lost")
        assert command["error"]["code"] == "agent_state_lost"
        assert (await run.end())["ok"] is True  # taken for a repeat: what is final never changes
        assert (await seen(admin, run.command_id))["state"] == "lost"


async def test_an_agent_that_knows_more_than_a_restored_controller_gets_a_new_epoch(
    controller: Running, admin: httpx2.AsyncClient
) -> None:
    agent = of(controller)
    await agent.connect()
    assert (await agent.register(last_epoch=41))["epoch"] == 42
    await agent.disconnect()
    await agent.connect()
    assert (await agent.register(last_epoch=2**63 - 1))["epoch"] == 43
    run = await taken(admin, agent)
    assert (await run.end())["ok"] is True
    await agent.disconnect()


async def test_an_order_that_the_agent_has_done_and_forgotten_leaves_its_command_lost(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    agent.answer = lambda order: willing(order) | {"state": "succeeded", "held": False}
    command = await reaches(admin, await submit(admin), "lost")
    assert command["error"]["code"] == "agent_state_lost"


async def test_an_order_whose_end_is_on_its_way_is_an_acknowledged_one(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    agent.answer = lambda order: willing(order) | {"state": "succeeded", "held": True}
    await submit(admin)
    run = await agent.execution()
    await reaches(admin, run.command_id, "dispatched")
    run.started_at = now()
    assert (await run.end())["ok"] is True
    assert (await seen(admin, run.command_id))["state"] == "succeeded"


@pytest.mark.parametrize("code", ["draining", "agent_busy"])
async def test_an_agent_that_says_not_now_is_offered_the_same_order_again(
    admin: httpx2.AsyncClient,
    agent: ProtocolAgent,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
) -> None:
    monkeypatch.setattr("app.application.dispatcher.PUT_OFF_S", 0.05)
    refused = {"ok": False, "error": {"code": code, "message": "not now"}}
    agent.answer = lambda order: refused | {"command_id": order["command_id"]}
    command_id = await submit(admin)
    for _ in range(2):
        assert (await agent.next_order())["command_id"] == command_id
    assert (await seen(admin, command_id))["state"] == "queued"
    agent.answer = willing
    await reaches(admin, command_id, "dispatched")


async def test_an_order_that_was_put_off_for_too_long_is_rejected_by_the_agent(
    admin: httpx2.AsyncClient, agent: ProtocolAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.application.dispatcher.PUT_OFF_S", 0.05)
    codes = iter(("agent_busy", "expired"))

    def answer(order: dict[str, Any]) -> dict[str, Any]:
        error = {"code": next(codes), "message": "no"}
        return {"ok": False, "command_id": order["command_id"], "error": error}

    agent.answer = answer
    command = await reaches(admin, await submit(admin), "rejected")
    assert command["error"]["code"] == "expired"


async def test_what_is_final_or_unknown_here_is_dropped_by_the_agent(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.end()
    await agent.disconnect()
    await agent.connect()
    held = [
        {"command_id": name, "state": "running", "next_seq": 0}
        for name in (run.command_id, "unknown")
    ]
    response = await agent.register(resume=held)
    assert {r["command_id"]: r["drop"] for r in response["resume"]} == {
        run.command_id: True,
        "unknown": True,
    }


async def test_an_agent_that_answers_nonsense_loses_its_session_and_is_asked_again(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    agent.answer = lambda _order: {"nonsense": 1}
    command_id = await submit(admin)
    async with asyncio.timeout(20):
        await agent.closed.wait()
    agent.answer = willing
    await agent.connect()
    await agent.register()
    await reaches(admin, command_id, "dispatched")
    assert [order["command_id"] for order in agent.seen] == [command_id] * 2
