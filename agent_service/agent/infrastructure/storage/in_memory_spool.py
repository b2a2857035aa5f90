"""A Spool that ends with the process."""

from dataclasses import dataclass, field

from agent.domain.ids import CommandId
from agent.domain.models.output import Chunk, Counts, Missing, OutputTotals, Piece, Position, Stream
from agent.domain.models.transmission import Transmission, Written


@dataclass(slots=True)
class InMemoryRecording:
    """What one command wrote; outlives whoever transmits it."""

    pieces: list[Piece] = field(default_factory=list)
    gaps: list[Missing] = field(default_factory=list)
    unproven: list[Stream] = field(default_factory=list)
    written: Written | None = None

    def add(self, piece: Piece) -> None:
        """Keep what came."""
        self.pieces.append(piece)

    def read(self, after: Counts) -> Piece | Missing | None:
        """The first piece that lies behind `after` in its stream."""
        for piece in self.pieces:
            done = after.of(piece.stream) - piece.offset
            if done < 0:
                return Missing(piece.stream, after.of(piece.stream), -done)
            if done < len(piece.data):
                data = piece.data[done:]
                return Piece(piece.stream, piece.offset + done, data, piece.at)
        return None

    def release(self, before: Counts) -> None:
        """Let go of pieces that end before."""
        while self.pieces and self._is_before(self.pieces[0], before):
            self.pieces.pop(0)

    def note_gap(self, gap: Missing, *, is_sent_past: bool) -> None:
        """Remember what is left out."""
        self.gaps.append(gap)
        if is_sent_past:
            self.unproven.append(gap.stream)

    @staticmethod
    def _is_before(piece: Piece, place: Counts) -> bool:
        return piece.offset + len(piece.data) <= place.of(piece.stream)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(len(piece.data) for piece in self.pieces)


class InMemorySpool:
    """A Spool over recordings in memory; `recordings` is what survives of it."""

    def __init__(self, recordings: dict[CommandId, InMemoryRecording] | None = None) -> None:
        self.recordings = {} if recordings is None else recordings
        self._transmissions: dict[CommandId, Transmission] = {}

    def write(self, command_id: CommandId, piece: Piece) -> None:
        """Keep what a process wrote."""
        self.recordings.setdefault(command_id, InMemoryRecording()).add(piece)

    def seek(self, command_id: CommandId, position: Position) -> None:
        """Read on from `position`."""
        self._of(command_id).seek(position)

    def next_chunk(self, command_id: CommandId) -> Chunk | None:
        """The chunk that follows."""
        return self._of(command_id).next_chunk()

    def acknowledge(self, command_id: CommandId, position: Position) -> None:
        """Everything before `position` may go, unless it is still needed for hashing."""
        transmission = self._of(command_id)
        places = (transmission.place_of(s, position.bytes_of(s)) for s in Stream)
        needed = (transmission.needed_from(s, 0) for s in Stream)
        before = Counts(*(min(pair) for pair in zip(places, needed, strict=True)))
        self.recordings[command_id].release(before)

    def finish(self, command_id: CommandId, written: Written) -> None:
        """The command's processes write no more."""
        self._of(command_id).finish(written)

    def totals(self, command_id: CommandId) -> OutputTotals:
        """The account of what was given."""
        return self._of(command_id).totals()

    def disown(self, command_id: CommandId) -> None:
        """The account says from now on that nothing is proven."""
        self._of(command_id).disown()

    def forget(self, command_id: CommandId) -> None:
        """Let go of everything of a command."""
        self.recordings.pop(command_id, None)
        self._transmissions.pop(command_id, None)

    def _of(self, command_id: CommandId) -> Transmission:
        known = self._transmissions.get(command_id)
        if known is None:
            recording = self.recordings.setdefault(command_id, InMemoryRecording())
            known = self._transmissions[command_id] = Transmission(
                recording, recording, gaps=recording.gaps, unproven=recording.unproven
            )
        return known
