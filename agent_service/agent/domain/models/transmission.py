"""How far a command's output has been cut, hashed and sent, over bytes that somebody else keeps."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from agent.domain.models.output import (
    DIGEST_BLOCK_BYTES,
    BlockDigest,
    Chunk,
    Counts,
    Missing,
    OutputTotals,
    Piece,
    Position,
    Stream,
    StreamTotals,
    Transcript,
)

#: Behind the end of every stream: who reads from here reads the other stream alone.
_BEYOND: Final = 1 << 62


class Recording(Protocol):
    """What a command wrote, as far as it is kept."""

    def read(self, after: Counts) -> Piece | Missing | None:
        """The first that came of all that lies behind `after` in its stream.

        None where nothing more is there now. Missing stands for bytes that were written and
        cannot be read as they were.
        """
        ...


class Ledger(Protocol):
    """Where a transmission writes down what it could not find out again after a restart."""

    def note_gap(self, gap: Missing, *, is_sent_past: bool) -> None:
        """`gap` is left out of what is sent; `is_sent_past`: it was part of a digest before."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What a process wrote in all, and how much of that was kept for sending."""

    in_all: Counts
    kept: Counts


class Transmission:
    """Gives a command's output as chunks, from wherever the controller stands.

    Places of chunks and digests count what is sent; they differ from places in the recording by
    the gaps before them.
    """

    def __init__(
        self,
        recording: Recording,
        ledger: Ledger,
        *,
        gaps: Sequence[Missing] = (),
        blocks: Mapping[Stream, Sequence[bytes]] | None = None,
        unproven: Sequence[Stream] = (),
    ) -> None:
        self._recording = recording
        self._ledger = ledger
        self._gaps = _joined(gaps)
        self._damaged_later: list[Missing] = []
        self._digests: dict[Stream, BlockDigest | None] = {
            stream: None if stream in unproven else BlockDigest((blocks or {}).get(stream, ()))
            for stream in Stream
        }
        self._ending: Written | None = None
        self._ready: deque[Chunk] = deque()
        self._given = Position()
        self._cursor = dict.fromkeys(Stream, 0)
        self._transcript = Transcript(self._given)

    # --- reading --------------------------------------------------------------------------

    def seek(self, position: Position) -> None:
        """Go on from `position`, which is where the controller stands."""
        self._ready.clear()
        self._given = position
        self._transcript = Transcript(position)
        for stream in Stream:
            self._cursor[stream] = self.place_of(stream, position.bytes_of(stream))
            self._catch_up(stream, position.bytes_of(stream))

    def next_chunk(self) -> Chunk | None:
        """The next chunk; None where nothing more is there now."""
        while not self._ready:
            if not self._read_on():
                return None
        chunk = self._ready.popleft()
        self._hash(chunk)
        self._given = chunk.after
        return chunk

    def finish(self, ending: Written) -> None:
        """Nothing more comes: what the process wrote is known."""
        self._ending = ending

    def totals(self) -> OutputTotals:
        """The account of all that was given; complete once `finish` and the last chunk were."""
        ending = self._ending or Written(Counts(), Counts())
        stdout, stderr = (
            StreamTotals(
                ending.in_all.of(stream), self._given.bytes_of(stream), self._digest(stream)
            )
            for stream in Stream
        )
        missing = sorted({*self._gaps, *self._damaged_later}, key=lambda m: (m.stream, m.offset))
        return OutputTotals(self._given.next_seq, stdout, stderr, tuple(missing))

    def disown(self) -> None:
        """What the controller has is not what was sent: none of it is proven."""
        for stream in Stream:
            if sent := self._given.bytes_of(stream):
                self._digests[stream] = None
                self._damaged_later.append(Missing(stream, 0, sent))

    # --- places ---------------------------------------------------------------------------

    def place_of(self, stream: Stream, sent: int) -> int:
        """Where in the recording the bytes begin before which `sent` bytes were sent."""
        place = sent
        for gap in self._gaps:
            if gap.stream is stream and gap.offset <= place:
                place += gap.length
        return place

    def blocks_of(self, stream: Stream) -> Sequence[bytes]:
        """Digests of the blocks that are complete; empty where none can be made."""
        digest = self._digests[stream]
        return digest.blocks if digest is not None else ()

    def needed_from(self, stream: Stream, blocks: int) -> int:
        """From where on it is needed for hashing while `blocks` digests are written down."""
        if self._digests[stream] is None:
            return _BEYOND
        return self.place_of(stream, blocks * DIGEST_BLOCK_BYTES)

    # --- inside ---------------------------------------------------------------------------

    def _read_on(self) -> bool:
        """Whether anything more could be taken from the recording."""
        found = self._recording.read(Counts(*self._cursor.values()))
        if isinstance(found, Piece):
            self._cursor[found.stream] = found.offset + len(found.data)
            self._ready += self._transcript.feed(found)
        elif found is not None:
            self._leave_out(found)
        else:
            return self._read_end()
        return True

    def _read_end(self) -> bool:
        """Whether the end, once it is known, brings anything more."""
        if self._ending is None:
            return False
        before = len(self._ready)
        for stream in Stream:
            kept = self._ending.kept.of(stream)
            if kept > self._cursor[stream]:
                self._leave_out(Missing(stream, self._cursor[stream], kept - self._cursor[stream]))
            # Half a character at a cut is no text.
            is_whole = kept == self._ending.in_all.of(stream)
            self._ready += self._transcript.break_off(stream, is_kept=is_whole)
        return len(self._ready) > before

    def _leave_out(self, gap: Missing) -> None:
        stream = gap.stream
        self._ready += self._transcript.break_off(stream)
        digest = self._digests[stream]
        sent = self._cut_up_to(stream)
        is_sent_past = digest is not None and digest.covered > sent
        if is_sent_past:
            self._digests[stream] = None
        self._cursor[stream] = gap.offset + gap.length
        known, self._gaps = self._gaps, _joined([*self._gaps, gap])
        if is_sent_past or self._gaps != known:  # else it is met for the second time
            self._ledger.note_gap(gap, is_sent_past=is_sent_past)

    def _cut_up_to(self, stream: Stream) -> int:
        last = next((chunk for chunk in reversed(self._ready)), None)
        return (last.after if last is not None else self._given).bytes_of(stream)

    def _hash(self, chunk: Chunk) -> None:
        digest = self._digests[chunk.stream]
        if digest is not None and digest.covered < chunk.offset + len(chunk.data):
            digest.update(chunk.data[digest.covered - chunk.offset :])

    def _catch_up(self, stream: Stream, sent: int) -> None:
        """Hash what was sent before this process began, and no digest covers."""
        digest = self._digests[stream]
        while digest is not None and digest.covered < sent:
            place = self.place_of(stream, digest.covered)
            found = self._recording.read(_alone(stream, place))
            if isinstance(found, Piece) and found.offset == place:
                digest.update(found.data[: sent - digest.covered])
            else:
                lost = found if isinstance(found, Missing) else Missing(stream, place, sent - place)
                self._digests[stream] = digest = None
                self._damaged_later.append(replace(lost, length=max(lost.length, 1)))

    def _digest(self, stream: Stream) -> str:
        digest = self._digests[stream]
        return digest.hexdigest() if digest is not None else ""


def _joined(gaps: Sequence[Missing]) -> list[Missing]:
    """The same gaps, each byte in one: a gap is met again, or larger, by who reads again."""
    joined: list[Missing] = []
    for gap in sorted(gaps, key=lambda gap: (gap.stream, gap.offset)):
        last = joined[-1] if joined else None
        if last is None or last.stream is not gap.stream or last.offset + last.length < gap.offset:
            joined.append(gap)
        else:
            end = max(last.offset + last.length, gap.offset + gap.length)
            joined[-1] = replace(last, length=end - last.offset)
    return joined


def _alone(stream: Stream, place: int) -> Counts:
    return Counts(place, _BEYOND) if stream is Stream.STDOUT else Counts(_BEYOND, place)
