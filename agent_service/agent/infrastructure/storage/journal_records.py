"""Facts of the journal as JSON, and back."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from agent.application.ports.journal import Unfinished
from agent.domain.ids import AgentId, CommandId
from agent.domain.models.execution import Failure, Outcome, State, StopFailure
from agent.domain.models.executor import ExecutionType, Exit, Place
from agent.domain.models.order import Order
from agent.domain.models.output import Counts
from agent.domain.models.transmission import Written
from agent.infrastructure.runner.records import from_json, to_json
from agent.infrastructure.storage.journal_state import JournalState, Released

Facts = dict[str, Any]

_EPOCH_BYTES: Final = 80
#: Released ids to a record of a rewritten journal.
_RELEASED_AT_ONCE: Final = 50


def epoch_record(epoch: int, ahead_s: float) -> bytes:
    """The epoch of a session, and how far the controller's clock is ahead of this host's.

    Always of the same length, so that it can be written in place.
    """
    return to_json({"epoch": epoch, "ahead_us": round(ahead_s * 1e6)}).ljust(_EPOCH_BYTES)


def order_record(order: Order, keeper: str | None) -> bytes:
    """An accepted order, and who starts it at once."""
    return to_json({"order": _order(order), "keeper": keeper})


def start_record(command_id: CommandId, keeper: str) -> bytes:
    """Who starts an order that waited."""
    return to_json({"start": command_id, "keeper": keeper})


def outcome_record(outcome: Outcome) -> bytes:
    """How an order came out."""
    return to_json({"outcome": _outcome(outcome)})


def released_record(released: list[Released]) -> bytes:
    """Commands of which nothing has to be told any more."""
    rows = [
        [r.command_id, r.state.value, to_micros(r.at), to_micros(r.expires_at)] for r in released
    ]
    return to_json({"released": rows})


def records_of(state: JournalState) -> Iterator[bytes]:
    """Everything that a journal knows, as a new one would hold it."""
    yield epoch_record(state.epoch, state.ahead_s)
    released: list[Released] = []
    for entry in state.released():
        released.append(entry)
        if len(released) == _RELEASED_AT_ONCE:
            yield released_record(released)
            released = []
    if released:
        yield released_record(released)
    for unfinished in state.unfinished():
        yield order_record(unfinished.order, unfinished.keeper)
        if unfinished.outcome is not None:
            yield outcome_record(unfinished.outcome)


def apply(record: bytes, state: JournalState) -> None:
    """Take a record into `state`; raises ValueError or KeyError for one that says nothing known."""
    facts = from_json(record)
    if "epoch" in facts:
        state.epoch, state.ahead_s = int(facts["epoch"]), facts["ahead_us"] / 1e6
    elif "order" in facts:
        state.accept(Unfinished(_order_of(facts["order"]), facts["keeper"]))
    elif "start" in facts:
        _apply_start(CommandId(facts["start"]), facts["keeper"], state)
    elif "outcome" in facts:
        state.settle(_outcome_of(facts["outcome"]))
    else:
        for command_id, word, at, expires_at in facts["released"]:
            times = (from_micros(at), from_micros(expires_at))
            state.take_released(Released(CommandId(command_id), State(word), *times))


def _apply_start(command_id: CommandId, keeper: str, state: JournalState) -> None:
    state.change(command_id, lambda entry: Unfinished(entry.order, keeper, entry.outcome))


def to_micros(at: datetime) -> int:
    """Microseconds since 1970."""
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def from_micros(micros: int) -> datetime:
    """The moment; aware, UTC."""
    seconds, rest = divmod(micros, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def _order(order: Order) -> Facts:
    return {
        "id": order.id,
        "agent_id": order.agent_id,
        "command": order.command,
        "target": order.target,
        "max_output_bytes": order.max_output_bytes,
        "expires_at": to_micros(order.expires_at),
        "timeout_s": order.timeout_s,
        "env": dict(order.env),
        "cwd": order.cwd,
        "stdin": order.stdin,
    }


def _order_of(facts: Facts) -> Order:
    return Order(
        id=CommandId(facts["id"]),
        agent_id=AgentId(facts["agent_id"]),
        command=facts["command"],
        target=facts["target"],
        max_output_bytes=facts["max_output_bytes"],
        expires_at=from_micros(facts["expires_at"]),
        timeout_s=facts["timeout_s"],
        env=facts["env"],
        cwd=facts["cwd"],
        stdin=facts["stdin"],
    )


def _outcome(outcome: Outcome) -> Facts:
    started, place, stop = outcome.started_at, outcome.place, outcome.stop_failure
    return {
        "id": outcome.command_id,
        "state": outcome.state.value,
        "finished_at": to_micros(outcome.finished_at),
        "started_at": to_micros(started) if started else None,
        "written": [outcome.written.in_all.stdout, outcome.written.in_all.stderr],
        "kept": [outcome.written.kept.stdout, outcome.written.kept.stderr],
        "code": outcome.exit.code,
        "signal": outcome.exit.signal,
        "place": [place.execution_type.value, place.target] if place else None,
        "failure": [outcome.failure.code, outcome.failure.message] if outcome.failure else None,
        "stop_failure": [stop.code, stop.message, list(stop.pids)] if stop else None,
    }


def _outcome_of(facts: Facts) -> Outcome:
    place, started, stop = facts["place"], facts["started_at"], facts["stop_failure"]
    return Outcome(
        command_id=CommandId(facts["id"]),
        state=State(facts["state"]),
        finished_at=from_micros(facts["finished_at"]),
        started_at=from_micros(started) if started is not None else None,
        written=Written(Counts(*facts["written"]), Counts(*facts["kept"])),
        exit=Exit(facts["code"], facts["signal"]),
        place=Place(ExecutionType(place[0]), place[1]) if place else None,
        failure=Failure(*facts["failure"]) if facts["failure"] else None,
        stop_failure=StopFailure(*stop) if stop else None,
    )
