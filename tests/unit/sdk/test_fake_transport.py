import pytest

from ogent.client import Chunk, Client, Finished
from ogent.client.errors import AgentOffline, CommandNotFound, ConnectionFailed, NotFound
from ogent.client.testing import FakeTransport


@pytest.fixture
def transport() -> FakeTransport:
    fake = FakeTransport()
    fake.add_agent("web-1", labels={"role": "web"})
    fake.add_agent("away-1", status="offline")
    fake.on("uptime", stdout=b"up\n", stderr=b"\xff", exit_code=3)
    return fake


async def test_a_program_runs_and_follows_a_command(transport):
    async with Client("http://fake", token="any", transport=transport) as client:
        done = await client.execute("web-1", "uptime")
        assert isinstance(done, Finished)
        events = [event async for event in client.follow(done.command_id)]
        chunks = [(e.seq, e.stream, e.data) for e in events if isinstance(e, Chunk)]
        assert chunks == [(0, "stdout", b"up\n"), (1, "stderr", b"\xff")]
        assert isinstance(events[-1], Finished)
        assert events[-1].result.exit_code == 3
        assert (await client.command(done.command_id)).exit_code == 3
        assert [p async for p in client.output_bytes(done.command_id, "stdout", 1)] == [b"p", b"\n"]


async def test_it_refuses_as_a_controller_does(transport):
    async with Client("http://fake", token="any", transport=transport) as client:
        with pytest.raises(AgentOffline):
            await client.execute("away-1", "uptime")
        with pytest.raises(CommandNotFound):
            await client.command("fake-9")
        with pytest.raises(NotFound):
            await client.tokens()


async def test_reading_and_unsent_commands_survive_a_break(transport):
    async with Client("http://fake", token="any", transport=transport) as client:
        transport.breaks = 1
        assert len(await client.agents()) == 2
        transport.breaks = 1
        assert isinstance(await client.execute("web-1", "uptime"), Finished)
        assert len(transport.requests) == 4


async def test_a_break_that_lasts_is_told(transport):
    transport.breaks = 10
    async with Client("http://fake", token="any", retry_for=0, transport=transport) as client:
        with pytest.raises(ConnectionFailed, match="broken on purpose"):
            await client.agents()
