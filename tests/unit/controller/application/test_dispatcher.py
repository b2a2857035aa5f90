"""Orders reach their agent in order, until acknowledged, within a window."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from app.application import dispatcher, full_disk
from app.application.dispatcher import WINDOW
from app.application.ports.wakeups import agent_topic, command_topic
from app.application.use_cases.record_reports import StateReport
from app.domain.errors import MalformedAnswer, StorageFull
from app.domain.ids import CommandId
from app.domain.models.agent import Session
from app.domain.models.command import Command
from app.domain.models.order import PendingControl, QueuedRun
from app.domain.models.states import Action, State
from app.infrastructure.repositories.in_memory_command_repository import InMemoryCommandRepository
from ogent.protocol.codec import unpack
from tests.builders import SEALED, WEB, a_beginning, a_command, a_principal, an_agent
from tests.fakes.in_memory_controller import InMemoryController
from tests.fakes.recording_agent_channel import Sent


@asynccontextmanager
async def served(controller: InMemoryController, session: Session) -> AsyncIterator[None]:
    """The dispatcher serves `session` while open."""
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(controller.dispatcher.serve(session))
        yield
        serving.cancel()


async def until(controller: InMemoryController, command_id: CommandId, state: State) -> Command:
    """The command once the store has it in `state`."""
    with controller.wakeups.listen(command_topic(command_id)) as bell:
        async with asyncio.timeout(20):
            while (command := await controller.commands.get(command_id)).state is not state:
                await bell.wait()
    return command


async def settled(is_so: Callable[[], bool]) -> None:
    """Return when `is_so`, after everything that is ready has run."""
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.001)
    for _ in range(50):
        await asyncio.sleep(0)


def command_of(sent: Sent) -> str:
    return str(unpack(sent.sealed.order)["command_id"])


async def test_what_waited_and_what_comes_is_sent_in_the_order_of_acceptance(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_agent())
    waiting = [await controller.submit(may_wait=True) for _ in range(3)]
    session = await controller.register()
    async with served(controller, session):
        first = [await controller.channel.next() for _ in waiting]
        coming = [await controller.submit() for _ in range(3)]
        rest = [await controller.channel.next() for _ in coming]
        assert [command_of(sent) for sent in first + rest] == waiting + coming
        assert {sent.session for sent in first + rest} == {session}


async def test_an_acknowledged_order_is_dispatched(controller: InMemoryController) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).acknowledge()
        await until(controller, command_id, State.DISPATCHED)
    assert len(controller.channel.sent) == 1


async def test_the_offer_is_noted_before_the_order_is_sent(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_agent(epoch=6))
    command_id = await controller.submit(may_wait=True)
    session = await controller.register()
    async with served(controller, session):
        await controller.channel.next()
        assert (await controller.commands.get(command_id)).offered_epoch == session.epoch == 7


async def test_the_offer_is_in_the_store_with_an_order_that_is_sent_at_once(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        await settled(lambda: controller.handover.served_epoch(WEB) is not None)
        command_id = await controller.submit()
        await controller.channel.next()
        assert (await controller.commands.get(command_id)).offered_epoch == session.epoch


async def test_a_refused_order_is_rejected_with_the_reason(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).refuse("no_executor", "there is no ssh here")
        command = await until(controller, command_id, State.REJECTED)
    assert command.failure is not None
    assert (command.failure.code, command.failure.message) == (
        "no_executor",
        "there is no ssh here",
    )


async def test_a_command_of_which_the_agent_holds_nothing_any_more_is_lost_at_once(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).be_gone()
        command = await until(controller, command_id, State.LOST)
    assert command.failure is not None
    assert command.failure.code == "agent_state_lost"


async def test_a_control_of_which_the_agent_holds_nothing_any_more_loses_its_command(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).acknowledge()
        await until(controller, command_id, State.DISPATCHED)
        await controller.control_command(a_principal(), command_id, Action.CANCEL)
        (await controller.channel.next()).be_gone()
        await until(controller, command_id, State.LOST)
    assert await controller.commands.pending_controls(WEB) == []


class FullStore(InMemoryCommandRepository):
    """A store that refuses every change while it is full, and counts what it refused."""

    is_full = False
    refused = 0

    async def change(self, *arguments: Any, **options: Any) -> Command:
        if self.is_full:
            self.refused += 1
            raise StorageFull("no room")
        return await super().change(*arguments, **options)


async def test_a_full_disk_ends_no_session_and_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(full_disk, "FULL_PAUSE_S", 0.001)
    monkeypatch.setattr(dispatcher, "ACKNOWLEDGE_AFTER_S", 0)
    controller = InMemoryController(FullStore)
    store = controller.commands
    assert isinstance(store, FullStore)
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        sent = await controller.channel.next()
        store.is_full = True
        sent.acknowledge()
        await settled(lambda: store.refused > 3)
        store.is_full = False
        await until(controller, command_id, State.DISPATCHED)
    assert len(controller.channel.sent) == 1


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "PUT_OFF_S", 0.01)


async def test_an_order_that_is_put_off_stays_queued_and_is_offered_again(
    controller: InMemoryController, soon: None
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        for _ in range(3):
            (await controller.channel.next()).put_off()
            assert (await controller.commands.get(command_id)).state is State.QUEUED
        (await controller.channel.next()).acknowledge()
        await until(controller, command_id, State.DISPATCHED)


async def test_nothing_newer_passes_an_order_that_is_put_off(
    controller: InMemoryController, soon: None
) -> None:
    session = await controller.register()
    async with served(controller, session):
        ids = [await controller.submit() for _ in range(3)]
        taken, off, also_off = [await controller.channel.next() for _ in ids]
        taken.acknowledge()
        also_off.put_off()
        off.put_off()
        await settled(lambda: True)
        ids += [await controller.submit() for _ in range(2)]
        again = [await controller.channel.next() for _ in ids[1:]]
        assert [command_of(sent) for sent in again] == ids[1:]


class SlowStore(InMemoryCommandRepository):
    """A store whose reads of orders wait while a test does not let them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.reads = 0

    async def queued_runs(self, *arguments: Any, **options: Any) -> list[QueuedRun]:
        runs = await super().queued_runs(*arguments, **options)
        await self.may_read.wait()
        self.reads += 1
        return runs


async def test_what_was_being_read_when_one_was_put_off_does_not_pass_it(
    soon: None,
) -> None:
    controller = InMemoryController(SlowStore)
    store = controller.commands
    assert isinstance(store, SlowStore)
    session = await controller.register()
    async with served(controller, session):
        first = await controller.submit()
        sent = await controller.channel.next()
        store.may_read.clear()
        newer = a_command(id=CommandId(controller.new_id()))
        await store.add(newer, SEALED)
        controller.wakeups.notify(agent_topic(WEB))
        await settled(lambda: True)
        sent.put_off()
        await settled(lambda: True)
        store.may_read.set()
        again = await controller.channel.next()
        assert command_of(again) == first
        assert (await controller.channel.next()).sealed == SEALED


async def test_what_is_under_way_is_not_sent_twice_when_another_is_put_off(
    controller: InMemoryController, soon: None
) -> None:
    session = await controller.register()
    async with served(controller, session):
        ids = [await controller.submit() for _ in range(2)]
        first, slow = [await controller.channel.next() for _ in ids]
        first.put_off()
        again = await controller.channel.next()
        assert command_of(again) == ids[0]
        again.acknowledge()
        await until(controller, ids[0], State.DISPATCHED)
        slow.put_off()
        assert command_of(await controller.channel.next()) == ids[1]
    assert len(controller.channel.sent) == 4


async def test_what_is_put_off_is_offered_in_the_next_session_anyway(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).put_off()
        await settled(lambda: True)
        assert len(controller.channel.sent) == 1
    session = await controller.register(last_epoch=session.epoch)
    async with served(controller, session):
        assert command_of(await controller.channel.next()) == command_id


async def test_a_control_that_is_put_off_is_sent_again(
    controller: InMemoryController, soon: None
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).acknowledge()
        await until(controller, command_id, State.DISPATCHED)
        await controller.control_command(a_principal(), command_id, Action.CANCEL)
        (await controller.channel.next()).put_off()
        (await controller.channel.next()).acknowledge()
        async with asyncio.timeout(20):
            while await controller.commands.pending_controls(WEB):
                await asyncio.sleep(0.001)
    assert (await controller.commands.get(command_id)).stop_failure is None


async def test_an_order_that_got_lost_is_sent_again_as_it_was(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        first = await controller.channel.next()
        first.lose()
        again = await controller.channel.next()
        assert again.sealed == first.sealed
        again.acknowledge()
        await until(controller, command_id, State.DISPATCHED)


async def test_an_order_that_no_longer_waits_is_not_sent(controller: InMemoryController) -> None:
    command = a_command()
    await controller.keep(command)
    session = await controller.register()
    (run,) = await controller.commands.queued_runs(WEB, after=None, limit=1)
    await controller.control_command(a_principal(), command.id, Action.CANCEL)
    await controller.dispatcher.deliver_run(session, run)
    assert controller.channel.sent == []
    assert (await controller.commands.get(command.id)).state is State.CANCELLED


async def test_a_report_that_overtakes_the_acknowledgement_is_not_undone(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        sent = await controller.channel.next()
        await controller.report(session, command_id, StateReport(State.RUNNING, a_beginning()))
        sent.acknowledge()
        await settled(lambda: True)
    assert (await controller.commands.get(command_id)).state is State.RUNNING


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_no_more_than_a_window_is_under_way(
    controller: InMemoryController, monkeypatch: pytest.MonkeyPatch, is_waiting: bool
) -> None:
    monkeypatch.setattr(dispatcher, "HANDED_MAX", 5)
    monkeypatch.setattr(dispatcher, "ACKNOWLEDGE_AFTER_S", 0)
    count, sent = WINDOW + 20, controller.channel.sent
    session = await controller.register()
    ids = [await controller.submit() for _ in range(count if is_waiting else 1)]
    async with served(controller, session):
        await settled(lambda: bool(sent))
        ids += [await controller.submit() for _ in range(count - len(ids))]
        for answered, command_id in enumerate(ids):
            under_way = min(WINDOW, count - answered)
            await settled(partial(reached, sent, answered + under_way))
            assert len(sent) == answered + under_way
            sent[answered].acknowledge()
            await until(controller, command_id, State.DISPATCHED)
    assert [command_of(one) for one in sent] == ids


@pytest.mark.parametrize("bound", [{"HANDED_MAX": 2}, {"HANDED_MAX_BYTES": 2500}], ids=str)
async def test_what_is_handed_over_beyond_a_bound_is_read_and_nothing_passes_it(
    monkeypatch: pytest.MonkeyPatch, bound: dict[str, int]
) -> None:
    """Also where that happens while the store is being read: what was read does not have it."""
    for name, value in bound.items():
        monkeypatch.setattr(dispatcher, name, value)
    controller = InMemoryController(SlowStore)
    store, sent = controller.commands, controller.channel.sent
    assert isinstance(store, SlowStore)
    session = await controller.register()
    store.may_read.clear()
    async with served(controller, session):
        await settled(lambda: controller.handover.served_epoch(WEB) is not None)
        ids = [await controller.submit("#" * 800) for _ in range(3)]  # the third is too much
        store.may_read.set()
        await settled(partial(reached, sent, 3))
        ids.append(await controller.submit())
        await settled(partial(reached, sent, 4))
    assert [command_of(one) for one in sent] == ids
    assert store.reads > 1


async def test_a_large_order_is_not_kept_in_memory_until_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "HANDED_MAX_BYTES", 2500)
    controller = InMemoryController(SlowStore)
    store, sent = controller.commands, controller.channel.sent
    assert isinstance(store, SlowStore)
    session = await controller.register()
    async with served(controller, session):
        await settled(lambda: store.reads == 1)
        first = await controller.submit("#" * 800)
        await settled(partial(reached, sent, 1))
        assert store.reads == 1
        large = await controller.submit("#" * 3000)
        await settled(partial(reached, sent, 2))
        assert store.reads == 2
    assert [command_of(one) for one in sent] == [first, large]


def reached(sent: list[Sent], count: int) -> bool:
    return len(sent) >= count


async def test_one_slow_answer_does_not_hold_up_the_others(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        slow, quick = await controller.submit(), await controller.submit()
        await controller.channel.next()
        (await controller.channel.next()).acknowledge()
        await until(controller, quick, State.DISPATCHED)
        assert (await controller.commands.get(slow)).state is State.QUEUED


async def test_a_control_order_is_sent_until_acknowledged_and_then_forgotten(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).acknowledge()
        await until(controller, command_id, State.DISPATCHED)
        await controller.control_command(a_principal(), command_id, Action.CANCEL)
        first = await controller.channel.next()
        first.lose()
        again = await controller.channel.next()
        assert (first.kind, again.kind, first.sealed) == ("control", "control", again.sealed)
        assert len(await controller.commands.pending_controls(WEB)) == 1
        again.acknowledge()
        async with asyncio.timeout(20):
            while await controller.commands.pending_controls(WEB):
                await asyncio.sleep(0.001)
    assert len(controller.channel.sent) == 3


async def test_a_control_order_waits_for_its_run_order(controller: InMemoryController) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        run = await controller.channel.next()
        await controller.control_command(a_principal(), command_id, Action.CANCEL)
        await settled(lambda: True)
        assert controller.channel.sent == [run]
        run.acknowledge()
        control = await controller.channel.next()
        assert (control.kind, command_of(control)) == ("control", command_id)


async def test_a_control_order_is_sent_once_while_it_is_under_way(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).acknowledge()
        await until(controller, command_id, State.DISPATCHED)
        actions = []
        for action in (Action.CANCEL, Action.KILL):
            await controller.control_command(a_principal(), command_id, action)
            sent = await controller.channel.next()
            actions.append(unpack(sent.sealed.order)["action"])
        await settled(lambda: True)
    assert actions == ["cancel", "kill"]
    assert len(controller.channel.sent) == 3


async def test_the_next_session_is_sent_what_the_last_did_not_acknowledge(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        await controller.channel.next()
    session = await controller.register(last_epoch=1)
    async with served(controller, session):
        again = await controller.channel.next()
        assert (command_of(again), again.session) == (command_id, session)
    assert (await controller.commands.get(command_id)).offered_epoch == 2


async def test_the_end_of_an_older_session_does_not_cut_off_the_newer(
    controller: InMemoryController,
) -> None:
    old = await controller.register()
    async with AsyncExitStack() as newer:
        async with served(controller, old):
            await settled(lambda: True)
            new = await controller.register(last_epoch=1)
            await newer.enter_async_context(served(controller, new))
            await settled(lambda: True)
        await controller.submit()
        assert (await controller.channel.next()).session == new


async def test_an_order_that_nobody_told_of_is_found(
    controller: InMemoryController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_AGAIN_S", 0.01)
    session = await controller.register()
    async with served(controller, session):
        await settled(lambda: True)
        command = a_command()
        await controller.commands.add(command, SEALED)
        assert (await controller.channel.next()).sealed == SEALED


async def test_an_answer_that_is_none_ends_the_session(controller: InMemoryController) -> None:
    session = await controller.register()
    serving = asyncio.create_task(controller.dispatcher.serve(session))
    async with asyncio.timeout(20):
        await controller.submit()
        (await controller.channel.next()).answer.set_exception(MalformedAnswer("nonsense"))
        with pytest.raises(ExceptionGroup) as caught:
            await serving
    assert caught.group_contains(MalformedAnswer)


async def test_a_session_that_ends_leaves_nothing_running(
    controller: InMemoryController,
) -> None:
    before = asyncio.all_tasks()
    session = await controller.register()
    async with served(controller, session):
        await controller.submit()
        sent = await controller.channel.next()
    assert sent.answer.cancelled()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("code", "state"), [("unknown_command", State.LOST), ("not_permitted", State.DISPATCHED)]
)
async def test_a_refused_control_is_said_on_its_command(
    controller: InMemoryController, code: str, state: State
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).acknowledge()
        await until(controller, command_id, State.DISPATCHED)
        await controller.control_command(a_principal(), command_id, Action.CANCEL)
        (await controller.channel.next()).refuse(code, "no")
        async with asyncio.timeout(20):
            while (await controller.commands.get(command_id)).requested_action is not None:
                if (await controller.commands.get(command_id)).state is State.LOST:
                    break
                await asyncio.sleep(0.001)
    command = await controller.commands.get(command_id)
    assert command.state is state
    assert (command.failure is None) is (state is State.DISPATCHED)
    assert (command.stop_failure is None) is (state is State.LOST)


async def test_a_control_stays_until_its_refusal_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_disk, "FULL_PAUSE_S", 0.001)
    controller = InMemoryController(FullStore)
    store = controller.commands
    assert isinstance(store, FullStore)
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).acknowledge()
        await until(controller, command_id, State.DISPATCHED)
        await controller.control_command(a_principal(), command_id, Action.CANCEL)
        sent = await controller.channel.next()
        store.is_full = True
        sent.refuse("not_permitted", "no")
        await settled(lambda: store.refused > 3)
    (left,) = await store.pending_controls(WEB)
    assert (left.command_id, left.action) == (command_id, Action.CANCEL)


async def test_a_control_under_way_is_not_sent_again_when_the_bell_rings(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        (await controller.channel.next()).acknowledge()
        await until(controller, command_id, State.DISPATCHED)
        await controller.control_command(a_principal(), command_id, Action.CANCEL)
        await controller.channel.next()
        controller.wakeups.notify(agent_topic(WEB))
        await settled(lambda: True)
    assert len(controller.channel.sent) == 2


async def test_sending_goes_on_from_the_first_that_was_put_off_whichever_was_heard_of_first(
    controller: InMemoryController, soon: None
) -> None:
    session = await controller.register()
    async with served(controller, session):
        ids = [await controller.submit() for _ in range(2)]
        for sent in [await controller.channel.next() for _ in ids]:
            sent.put_off()
        assert [command_of(await controller.channel.next()) for _ in ids] == ids


async def test_one_that_is_to_be_stopped_before_it_was_sent_is_cancelled_not_started(
    controller: InMemoryController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "WINDOW", 1)
    session = await controller.register()
    async with served(controller, session):
        await settled(lambda: controller.handover.served_epoch(WEB) is not None)
        first, stopped, last = [await controller.submit() for _ in range(3)]
        sent = await controller.channel.next()
        await controller.control_command(a_principal(), stopped, Action.CANCEL)
        await until(controller, stopped, State.CANCELLED)
        sent.acknowledge()
        assert command_of(await controller.channel.next()) == last
    assert [command_of(one) for one in controller.channel.sent] == [first, last]
    assert await controller.commands.pending_controls(WEB) == []


async def test_one_that_is_to_be_stopped_while_it_is_put_off_is_not_offered_again(
    controller: InMemoryController,
) -> None:
    session = await controller.register()
    async with served(controller, session):
        await settled(lambda: controller.handover.served_epoch(WEB) is not None)
        command_id = await controller.submit()
        sent = await controller.channel.next()
        await controller.control_command(a_principal(), command_id, Action.KILL)
        await settled(lambda: True)
        assert (await controller.commands.get(command_id)).state is State.QUEUED
        sent.put_off()
        await until(controller, command_id, State.CANCELLED)
    assert controller.channel.sent == [sent]


async def test_one_of_an_older_session_that_is_to_be_stopped_is_not_offered_in_this_one(
    controller: InMemoryController,
) -> None:
    command = a_command(offered_epoch=1)
    await controller.keep(an_agent(epoch=1), command)
    session = await controller.register(last_epoch=1)
    (run,) = await controller.commands.queued_runs(WEB, after=None, limit=1)
    await controller.control_command(a_principal(), command.id, Action.CANCEL)
    assert await controller.dispatcher.deliver_run(session, run)
    assert controller.channel.sent == []
    assert (await controller.commands.get(command.id)).state is State.CANCELLED


class LateStore(InMemoryCommandRepository):
    """A store whose read of controls is answered late, with what was true before."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def pending_controls(self, *arguments: Any) -> list[PendingControl]:
        found = await super().pending_controls(*arguments)
        await self.may_answer.wait()
        return found


async def test_a_stop_of_one_that_was_acknowledged_while_controls_were_read_is_sent() -> None:
    controller = InMemoryController(LateStore)
    store = controller.commands
    assert isinstance(store, LateStore)
    session = await controller.register()
    async with served(controller, session):
        command_id = await controller.submit()
        sent = await controller.channel.next()
        store.may_answer.clear()
        await controller.control_command(a_principal(), command_id, Action.CANCEL)
        await settled(lambda: True)
        sent.acknowledge()
        await until(controller, command_id, State.DISPATCHED)
        await settled(lambda: True)
        store.may_answer.set()
        control = await controller.channel.next()
        assert (control.kind, command_of(control)) == ("control", command_id)
