"""The four promises, as questions to what was seen of one command. Nothing here does I/O."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from hashlib import sha256

from ogent.client import State
from ogent.protocol.states import FINAL, Stream
from tests.faults.plans import Plan, Truth

#: States that say that a command's whole tree is gone.
STOPPED = frozenset({State.CANCELLED, State.TIMED_OUT, State.LOST})


@dataclass(frozen=True)
class Piece:
    """A chunk as a reader got it."""

    seq: int
    stream: str
    offset: int
    data: bytes


@dataclass
class Reading:
    """Everything that one reader saw of one command, repeats and gaps included."""

    reader: str
    pieces: list[Piece] = field(default_factory=list)
    ends: list[State] = field(default_factory=list)
    failure: str = ""

    def of(self, stream: str) -> bytes:
        return b"".join(piece.data for piece in self.pieces if piece.stream == stream)


@dataclass(frozen=True)
class Gap:
    """Bytes that the controller says are missing."""

    stream: str
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is to be seen of a command after its end. `left` is what lived when it was reported."""

    plan: Plan
    truth: Truth
    command_id: str
    state: State
    exit_code: int | None
    output_complete: bool
    written: dict[str, int]
    stored: dict[str, bytes]
    missing: Sequence[Gap] = ()
    starts: int = 1
    left: Sequence[int] = ()
    readings: Sequence[Reading] = ()


def broken_promises(seen: Seen, may_end_as: Set[State] = frozenset()) -> list[str]:
    """One line for each promise that does not hold; `may_end_as` is what a fault excuses."""
    checks = (
        _one_true_state(seen, may_end_as),
        _at_most_one_start(seen),
        _right_bytes(seen),
        _complete(seen, may_end_as),
        _nothing_left(seen),
        _every_chunk_once(seen),
    )
    return [f"{seen.command_id} ({seen.plan.key}): {line}" for check in checks for line in check]


def _one_true_state(seen: Seen, may_end_as: Set[State]) -> Iterator[str]:
    if seen.state not in FINAL:
        yield f"promise 1: has not ended, it is {seen.state}"
    elif _is_excused(seen, may_end_as):
        pass
    elif (seen.state, seen.exit_code) != (seen.truth.state, seen.truth.code):
        real = f"{seen.truth.state} with {seen.truth.code}"
        yield f"promise 1: is {seen.state} with {seen.exit_code}, in truth {real}"
    for reading in seen.readings:
        if reading.ends != [seen.state]:
            yield f"promise 1: {reading.reader} was told {reading.ends}, it is {seen.state}"


def _is_excused(seen: Seen, may_end_as: Set[State]) -> bool:
    """`failed` excuses only what says that it could not start, and did not."""
    never_started = seen.exit_code is None and seen.starts == 0
    return seen.state in may_end_as and (seen.state is not State.FAILED or never_started)


def _at_most_one_start(seen: Seen) -> Iterator[str]:
    if seen.starts > 1:
        yield f"promise 2: started {seen.starts} times"
    if seen.starts == 0 and seen.exit_code is not None:
        yield f"promise 2: is {seen.state} with {seen.exit_code} and never started"
    if seen.starts > 0 and seen.state is State.REJECTED:
        yield "promise 2: was rejected, and ran"


def _right_bytes(seen: Seen) -> Iterator[str]:
    for stream in Stream:
        stored = seen.stored[stream]
        fitting = [kept for kept in _kept(seen, stream) if kept.startswith(stored)]
        if not fitting:
            yield f"promise 3: {_digests(seen, stream)}"
        elif _is_whole(seen) and stored not in fitting:
            yield f"promise 3: says complete, and is not: {_digests(seen, stream)}"
    for stream in Stream:
        if seen.exit_code is not None and seen.written[stream] != len(seen.truth.of(stream)):
            yield f"promise 3: counts {seen.written[stream]} bytes of {stream} as written"


def _complete(seen: Seen, may_end_as: Set[State]) -> Iterator[str]:
    if seen.missing and seen.output_complete:
        yield "promise 3: says that all is there, and names what is missing"
    if seen.output_complete:
        return
    if not may_end_as:
        yield f"promise 3: nothing excuses that {list(seen.missing)} is missing"
    if not seen.missing and seen.state is not State.LOST:
        yield "promise 3: is not complete, and does not say what is missing"


def _is_whole(seen: Seen) -> bool:
    return seen.output_complete and seen.exit_code is not None


def _kept(seen: Seen, stream: str) -> list[bytes]:
    """What may be stored: what the process wrote to `stream`, without any of the named gaps.

    A gap may have been stored before it was damaged at the agent.
    """
    kept = [seen.truth.of(stream)]
    for gap in sorted(seen.missing, key=lambda gap: -gap.offset):
        if gap.stream == stream:
            end = gap.offset + gap.length
            kept += [whole[: gap.offset] + whole[end:] for whole in kept]
    return kept


def _digests(seen: Seen, stream: str) -> str:
    stored, real = seen.stored[stream], seen.truth.of(stream)
    return (
        f"{stream} stored {len(stored)} bytes {sha256(stored).hexdigest()[:12]}, written"
        f" {len(real)} bytes {sha256(real).hexdigest()[:12]}, differs at {_differs(stored, real)},"
        f" missing {list(seen.missing)}"
    )


def _differs(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _nothing_left(seen: Seen) -> Iterator[str]:
    if seen.state in STOPPED and seen.left:
        yield f"promise 4: is {seen.state}, and processes {list(seen.left)} are left"


def _every_chunk_once(seen: Seen) -> Iterator[str]:
    for reading in seen.readings:
        if reading.failure:
            yield f"promise 3: {reading.reader} gave up: {reading.failure}"
        seqs = [piece.seq for piece in reading.pieces]
        if seqs != list(range(len(seqs))):
            yield f"promise 3: {reading.reader} saw chunks {_first_odd(seqs)}"
        yield from _offsets(reading)
        for stream in Stream:
            if reading.of(stream) != seen.stored[stream]:
                yield f"promise 3: {reading.reader} saw another {stream} than is stored"


def _first_odd(seqs: list[int]) -> str:
    at = next(at for at, seq in enumerate(seqs) if at != seq)
    return f"… {seqs[max(0, at - 2) : at + 3]} … where {at} was due"


def _offsets(reading: Reading) -> Iterator[str]:
    ends = dict.fromkeys(Stream, 0)
    for piece in reading.pieces:
        due = ends[Stream(piece.stream)]
        if piece.offset != due:
            yield f"promise 3: {reading.reader} got {piece.stream} from {piece.offset}, not {due}"
        ends[Stream(piece.stream)] = piece.offset + len(piece.data)
