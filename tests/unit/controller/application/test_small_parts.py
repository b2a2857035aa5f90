"""The event bus, the handover, the life cycle, the topics and the errors."""

import asyncio
import inspect
from contextlib import ExitStack

import pytest

from app.application.event_bus import EventBus
from app.application.handover import Handover
from app.application.lifecycle import Lifecycle
from app.application.ports.wakeups import AGENTS_TOPIC, agent_topic, command_topic
from app.domain import errors
from app.domain.errors import ControllerError, Draining, RangeNotSatisfiable, TooManyAttempts
from app.domain.events import AgentRegistered, AgentReleased, Event
from app.domain.ids import AgentId, SessionId
from app.domain.models.agent import Session
from ogent.protocol.problems import CODES
from tests.builders import DB, SEALED, WEB, a_command

#: Codes of answers to agents, which no problem document carries.
AGENTS_CODES = {
    "incomplete",
    "output_overrun",
    "stale_session",
    "agent_unreachable",
    "malformed_answer",
}


def test_every_handler_of_an_event_hears_it_in_order() -> None:
    heard: list[tuple[str, Event]] = []
    bus = EventBus(
        {
            AgentRegistered: [
                lambda event: heard.append(("first", event)),
                lambda event: heard.append(("second", event)),
            ]
        }
    )
    one, other = AgentRegistered(WEB), AgentRegistered(DB)
    bus.publish([one, AgentReleased(WEB), other])
    assert heard == [("first", one), ("second", one), ("first", other), ("second", other)]


async def test_a_draining_controller_takes_no_new_work() -> None:
    lifecycle = Lifecycle()
    lifecycle.require_ready()
    waiting = asyncio.create_task(lifecycle.until_draining())
    await asyncio.sleep(0)
    assert not lifecycle.is_draining
    assert not waiting.done()
    lifecycle.drain()
    assert lifecycle.is_draining
    with pytest.raises(Draining):
        lifecycle.require_ready()
    async with asyncio.timeout(20):
        await waiting


async def test_a_deadline_ends_the_wait() -> None:
    lifecycle = Lifecycle()
    async with lifecycle.deadline(20):
        pass
    with pytest.raises(TimeoutError):
        async with lifecycle.deadline(0.001):
            await asyncio.Event().wait()


async def test_a_deadline_that_is_just_passing_is_not_in_the_way_of_draining() -> None:
    lifecycle = Lifecycle()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20), lifecycle.deadline(0.001):
            try:
                await asyncio.Event().wait()
            finally:
                lifecycle.drain()
    assert lifecycle.is_draining


async def test_draining_ends_every_wait_at_once() -> None:
    lifecycle = Lifecycle()

    async def wait() -> None:
        async with lifecycle.deadline(3600):
            await asyncio.Event().wait()

    async with asyncio.timeout(20):
        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        await asyncio.sleep(0)
        lifecycle.drain()
        ended = await asyncio.gather(*waiting, wait(), return_exceptions=True)
    assert [type(error) for error in ended] == [TimeoutError] * 4


def test_an_order_is_handed_to_the_newest_receiver_alone() -> None:
    handover, old, new = Handover(), [], []
    command = a_command()
    command.announce(SEALED)
    (event,) = command.pull_events()
    with ExitStack() as newer:
        with handover.receiving(Session(WEB, SessionId("1"), 1), old.append):
            newer.enter_context(handover.receiving(Session(WEB, SessionId("2"), 2), new.append))
        handover.on_queued(event)
        assert handover.served_epoch(WEB) == 2
    handover.on_queued(event)
    assert (old, new) == ([], [event.run])
    assert handover.served_epoch(WEB) is None


def test_topics_differ() -> None:
    assert len({agent_topic("x"), command_topic("x"), agent_topic("y"), AGENTS_TOPIC}) == 4
    assert agent_topic(AgentId(WEB)) == agent_topic(WEB)


def controller_errors() -> list[type[ControllerError]]:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind for kind in found if issubclass(kind, ControllerError)]


@pytest.mark.parametrize("kind", controller_errors())
def test_every_error_has_a_code_that_the_protocol_knows(kind: type[ControllerError]) -> None:
    assert kind.code in CODES or kind.code in AGENTS_CODES


def test_errors_carry_what_their_reader_needs() -> None:
    error = TooManyAttempts("later", retry_after_s=3.5)
    assert (str(error), error.message, error.retry_after_s) == ("later", "later", 3.5)
    assert RangeNotSatisfiable("behind the end", length=7).length == 7
