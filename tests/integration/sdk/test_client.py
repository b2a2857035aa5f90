"""The client against a controller over real HTTP."""

import socket
from contextlib import aclosing

import pytest

from ogent.client import Client, Finished, Unfinished
from ogent.client.errors import (
    AgentNotFound,
    AgentOffline,
    CommandNotFound,
    ConnectionFailed,
    Draining,
    Forbidden,
    InvalidCredentials,
    InvalidFilter,
    InvalidId,
    InvalidState,
    NotSignedIn,
    RangeNotSatisfiable,
    TokenNotFound,
    UnexpectedAnswer,
    UnusableAddress,
    UnusableToken,
)
from ogent.protocol.states import Action, Role, State
from tests.fakes.scripted_controller import Script


async def test_a_command_that_ends_in_time_gives_its_result(client, controller):
    controller.scripts["uptime"] = Script([("stdout", b"up\n")])
    done = await client.execute("web-1", "uptime")
    assert isinstance(done, Finished)
    assert (done.state, done.result.stdout) == (State.SUCCEEDED, "up\n")


async def test_a_command_that_goes_on_gives_its_id(client):
    started = await client.execute("web-1", "sleep 100", wait=0)
    assert isinstance(started, Unfinished)
    assert started.command_id == "cmd-1"


async def test_every_field_of_execute_reaches_the_controller(client, controller):
    await client.execute(
        "web-1", "x", wait=0, timeout=5, env={"A": "b"}, cwd="/tmp", stdin="in", queue=True
    )
    asked = controller.commands["cmd-1"].request
    assert asked == {
        "command": "x",
        "wait": 0,
        "timeout": 5,
        "env": {"A": "b"},
        "cwd": "/tmp",
        "stdin": "in",
        "queue": True,
    }


async def test_every_execute_has_its_own_idempotency_key(client, controller):
    await client.execute("web-1", "x", wait=0)
    await client.execute("web-1", "x", wait=0)
    await client.execute("web-1", "x", wait=0, idempotency_key="mine")
    keys = [h["idempotency-key"] for h in controller.asked("/agents/web-1/execute")]
    assert keys[2] == "mine"
    assert len(set(keys)) == 3


async def test_a_field_out_of_range_is_told_before_anything_is_sent(client, controller):
    with pytest.raises(ValueError, match="timeout"):
        await client.execute("web-1", "x", timeout=-1)
    assert controller.requests == []


async def test_refusals_are_typed(client, controller):
    with pytest.raises(AgentNotFound):
        await client.execute("nobody", "x")
    with pytest.raises(AgentOffline) as caught:
        await client.execute("away-1", "x")
    assert (caught.value.code, caught.value.status) == ("agent_offline", 409)
    with pytest.raises(CommandNotFound):
        await client.command("cmd-9")
    with pytest.raises(Forbidden):
        await client.users()
    with pytest.raises(TokenNotFound):
        await client.delete_token("tok-9")


async def test_an_id_cannot_leave_its_place_in_the_path(client, controller):
    await client.agent("web-1")
    with pytest.raises(UnexpectedAnswer, match="404"):
        await client.command("../agents/web-1")
    for impossible in ("", ".", ".."):
        with pytest.raises(InvalidId):
            await client.command(impossible)
    assert len(controller.asked("/agents/web-1")) == 1


async def test_commands_are_listed_over_all_pages(client, controller):
    for number in range(450):
        controller.start(f"echo {number}")
    listed = [command.command_id async for command in client.commands()]
    assert listed == [f"cmd-{number}" for number in range(450, 0, -1)]
    assert len(controller.asked("/commands")) == 3


async def test_agents_may_be_filtered_and_looked_up(client):
    assert [a.agent_id for a in await client.agents()] == ["web-1", "away-1"]
    assert [a.agent_id for a in await client.agents(status="offline")] == ["away-1"]
    assert (await client.agent("web-1")).labels == {"role": "web"}


async def test_accounts_and_tokens(client):
    assert (await client.me()).username == "ada"
    made = await client.create_token("ci", role=Role.VIEWER)
    assert [token.name for token in await client.tokens()] == ["ci"]
    await client.delete_token(made.token_id)
    assert await client.tokens() == []
    assert (await client.create_user("bob", "long enough password", Role.VIEWER)).role == "viewer"
    await client.delete_user("bob")
    await client.change_password("old", "long enough password")


async def test_a_command_is_stopped_once(client, controller):
    controller.start("sleep 100")
    assert (await client.control("cmd-1", Action.CANCEL)).state == State.CANCELLED
    with pytest.raises(InvalidState):
        await client.control("cmd-1", "kill")


async def test_lines_of_output_may_be_filtered(client, controller):
    controller.start("x").write("stdout", b"apple\npear\n")
    page = await client.output("cmd-1", filter="pear")
    assert [(line.number, line.text) for line in page.lines] == [(1, "pear")]
    with pytest.raises(InvalidFilter):
        await client.output("cmd-1", filter="(")


async def test_bytes_survive_cuts_exactly(client, controller):
    data = bytes(range(256)) * 2000
    controller.start("x").write("stdout", data)
    controller.cuts = [70_000, 1, 300_000]
    got = b"".join([piece async for piece in client.output_bytes("cmd-1", "stdout", start=5)])
    assert got == data[5:]
    assert len(controller.asked("/commands/cmd-1/output/stdout")) == 4


async def test_a_start_behind_the_end_is_an_error(client, controller):
    controller.start("x").write("stdout", b"abc")
    with pytest.raises(RangeNotSatisfiable):
        async with aclosing(client.output_bytes("cmd-1", "stdout", start=4)) as pieces:
            await anext(pieces)


async def test_name_and_password_sign_in_once(url, controller):
    async with Client(url, username="ada", password="correct horse battery") as client:
        await client.me()
        await client.agents()
    assert controller.sign_ins == 1


async def test_a_token_is_renewed_before_it_ends(url, controller):
    controller.token_life_s = 0.0
    async with Client(url, username="ada", password="correct horse battery") as client:
        await client.me()
        await client.me()
    assert controller.sign_ins == 2


async def test_a_token_that_was_ended_is_replaced(url, controller):
    async with Client(url, username="ada", password="correct horse battery") as client:
        await client.me()
        controller.tokens.clear()
        assert (await client.me()).username == "ada"
        controller.tokens.clear()
        controller.start("x").end("succeeded", 0)
        assert [type(e).__name__ async for e in client.follow("cmd-1")][-1] == "ClientResult"


async def test_wrong_password_and_no_password(url):
    async with Client(url, username="ada", password="wrong") as client:
        with pytest.raises(InvalidCredentials):
            await client.me()
    async with Client(url) as client:
        assert (await client.health()).status == "healthy"
        assert await client.ready()
        with pytest.raises(NotSignedIn):
            await client.me()


async def test_reading_is_repeated_while_the_controller_is_not_ready(client, controller):
    controller.refusals = [503, 503]
    assert len(await client.agents()) == 2
    assert len(controller.asked("/agents")) == 3


async def test_repeating_ends_after_its_time(url, controller):
    controller.refusals = [503] * 1000
    async with Client(url, token="good-token", retry_for=0) as client:
        with pytest.raises(Draining):
            await client.agents()


async def test_an_unreachable_controller_is_said_with_its_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with Client(f"http://127.0.0.1:{port}", token="t", retry_for=0) as client:
        with pytest.raises(ConnectionFailed, match=f"{port}: Connection refused") as caught:
            await client.execute("web-1", "x")
    assert caught.value.nothing_sent


async def test_an_unusable_address_or_token_is_told_before_anything_is_sent(url, controller):
    for address in ("http://127.0.0.1:99999", "ftp://h", "http://"):
        with pytest.raises(UnusableAddress, match="cannot be used"):
            Client(address)
    for token in ("sécret", "secret\n", ""):
        with pytest.raises(UnusableToken, match="the token ") as caught:
            Client(url, token=token)
        assert "cret" not in str(caught.value)


async def test_another_web_server_is_not_mistaken_for_a_controller(client, controller):
    async with Client(client.url + "/elsewhere", token="good-token") as other:
        with pytest.raises(UnexpectedAnswer, match="404"):
            await other.me()
