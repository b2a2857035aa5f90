"""The spool on a disk that damages what lies on it."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent.domain.models.output import BlockDigest, Chunk, Missing, Position, Stream
from agent.infrastructure.runner.recorder import found_in
from agent.infrastructure.runner.records import INDEX_RECORD, INDEX_RECORDS
from agent.infrastructure.runner.spool_files import SpoolFiles
from tests.fakes.agent_ports import C
from tests.fakes.spool_homes import FileHome

OUT, ERR = Stream.STDOUT, Stream.STDERR
MIB = 1024 * 1024


@pytest.fixture
def home(tmp_path: Path) -> Iterator[FileHome]:
    home = FileHome(tmp_path)
    yield home
    home.close()


def taken(home: FileHome) -> list[Chunk]:
    chunks = []
    while (chunk := home.spool.next_chunk(C)) is not None:
        chunks.append(chunk)
    return chunks


def check(home: FileHome, written: dict[Stream, bytes], sent: Sequence[Chunk] = ()) -> int:
    """Everything that is given and said is true; how many bytes are named as missing.

    `sent` was given before.
    """
    home.spool.finish(C, home.written())
    chunks = [*sent, *taken(home)]
    totals = home.spool.totals(C)
    for stream, said in ((OUT, totals.stdout), (ERR, totals.stderr)):
        data = b"".join(chunk.data for chunk in chunks if chunk.stream is stream)
        gaps = [gap for gap in totals.missing if gap.stream is stream]
        assert (said.sent, said.written) == (len(data), len(written[stream]))
        if said.digest:
            digest = BlockDigest()
            digest.update(data)
            assert said.digest == digest.hexdigest()
            assert data == without(written[stream], gaps)
        else:
            assert gaps
    return sum(gap.length for gap in totals.missing)


def without(data: bytes, gaps: list[Missing]) -> bytes:
    """`data` with the gaps cut out."""
    kept, place = b"", 0
    for gap in sorted(gaps, key=lambda gap: gap.offset):
        kept += data[place : gap.offset]
        place = gap.offset + gap.length
    return kept + data[place:]


def write_some(home: FileHome, parts: int = 6, size: int = 40) -> dict[Stream, bytes]:
    """Both streams in turn, so that each part has a record of its own."""
    source = random.Random(parts)
    written = dict.fromkeys(Stream, b"")
    for number in range(parts):
        stream = (OUT, ERR)[number % 2]
        data = source.randbytes(size)
        home.write(data, stream)
        written[stream] += data
    return written


def flip(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position % len(raw)] ^= 1 << position % 8
    path.write_bytes(raw)


@pytest.mark.parametrize("name", ["stdout-00000000", "stderr-00000000"])
def test_a_flipped_bit_in_the_output_costs_the_record_that_it_is_in(
    home: FileHome, name: str
) -> None:
    written = write_some(home)
    path = home.path(name)
    for position in range(path.stat().st_size):
        flip(path, position)
        home.reopen()
        (home.path("progress")).unlink(missing_ok=True)
        assert check(home, written) == 40
        flip(path, position)


def test_a_flipped_bit_in_the_index_costs_the_record_that_it_is_in(home: FileHome) -> None:
    written = write_some(home)
    path = home.path("index-00000000")
    for position in range(path.stat().st_size):
        flip(path, position)
        home.reopen()
        (home.path("progress")).unlink(missing_ok=True)
        assert check(home, written) == 40, position
        flip(path, position)


@pytest.mark.parametrize("name", ["stdout-00000000", "stderr-00000000", "index-00000000"])
def test_a_file_that_was_cut_anywhere_costs_what_is_not_there(home: FileHome, name: str) -> None:
    written = write_some(home)
    path = home.path(name)
    raw = path.read_bytes()
    for length in range(0, len(raw), 3):
        path.write_bytes(raw[:length])
        home.reopen()
        (home.path("progress")).unlink(missing_ok=True)
        assert check(home, written) > 0
    path.write_bytes(raw)


def test_a_flipped_bit_in_the_progress_makes_nothing_untrue(home: FileHome) -> None:
    out = random.Random(1).randbytes(2 * MIB + 9)
    home.write(out)
    chunks = taken(home)
    home.spool.acknowledge(C, chunks[-1].after)
    path = home.path("progress")
    for position in range(path.stat().st_size):
        flip(path, position)
        home.reopen()
        home.spool.seek(C, chunks[-1].after)
        home.spool.finish(C, home.written())
        totals = home.spool.totals(C)
        assert taken(home) == []
        assert totals.stdout.digest == ""
        flip(path, position)


def test_what_is_damaged_after_it_was_sent_is_not_proven(home: FileHome) -> None:
    written = write_some(home)
    chunks = taken(home)
    flip(home.path("stdout-00000000"), 5)
    home.reopen()
    home.spool.seek(C, chunks[-1].after)
    home.spool.finish(C, home.written())
    totals = home.spool.totals(C)
    assert (totals.stdout.digest, totals.stdout.sent) == ("", len(written[OUT]))
    assert [gap.stream for gap in totals.missing] == [OUT]
    assert totals.stderr.digest != ""


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_damaged_and_wherever_it_is_read_on_from_what_is_said_is_true(
    home: FileHome, seed: int
) -> None:
    source = random.Random(seed)
    written = write_some(home, parts=source.randint(2, 30), size=source.choice([1, 40, 70_000]))
    for _ in range(source.randint(1, 3)):
        flip(source.choice(sorted(home.folder.glob("*-0*"))), source.randrange(1 << 20))
    sent: list[Chunk] = []
    for _ in range(source.randint(1, 8)):
        chunk = home.spool.next_chunk(C)
        if chunk is None:
            break
        sent.append(chunk)
        if source.random() < 0.3:
            home.spool.acknowledge(C, chunk.after)
        if source.random() < 0.3:
            home.reopen()
            home.spool.seek(C, chunk.after)
    if sent and source.random() < 0.5:
        back = source.choice(sent)
        sent = sent[: sent.index(back) + 1]
        home.reopen()
        home.spool.seek(C, back.after)
    check(home, written, sent)


def test_parts_of_the_index_that_nobody_needs_are_deleted(home: FileHome) -> None:
    for number in range(INDEX_RECORDS + 10):
        home.write(b"x", (OUT, ERR)[number % 2])
    assert len(list(home.folder.glob("*.index-*"))) == 2
    half = INDEX_RECORDS // 2
    recorder = home.recorder()
    recorder.release(half, half - 1, unlink=(half, half - 1))
    assert len(list(home.folder.glob("*.index-*"))) == 2
    recorder.release(half + 1, half, unlink=(half + 1, half))
    assert [path.name for path in home.folder.glob("*.index-*")] == ["c.index-00000001"]
    home.reopen()
    home.spool.seek(C, Position(9, half + 1, half))
    home.spool.finish(C, home.written())
    assert b"".join(chunk.data for chunk in taken(home)) == b"x" * 9


def test_a_record_that_grows_is_written_in_its_own_place(home: FileHome) -> None:
    for _ in range(5):
        home.write(b"x")
    assert (home.path("index-00000000")).stat().st_size <= 5 * INDEX_RECORD.size
    assert b"".join(chunk.data for chunk in taken(home)) == b"xxxxx"


def test_another_runner_counts_what_it_finds(home: FileHome) -> None:
    written = write_some(home, parts=9, size=300_000)
    files = SpoolFiles(str(home.folder))
    names = [path.name.partition(".")[2] for path in home.folder.iterdir()]
    found = found_in(str(home.folder / "c"), names, files)
    assert found.kept == [len(written[OUT]), len(written[ERR])]
    assert files.held == sum(found.kept)


def test_space_that_was_released_is_counted_once(home: FileHome) -> None:
    home.write(b"x" * 100)
    recorder = home.recorder()
    for _ in range(2):
        recorder.release(60, 0, unlink=(0, 0))
        recorder.release(50, 0, unlink=(0, 0))
    assert (home.usage.held, recorder.held) == (40, 40)
    recorder.forget()
    assert (home.usage.held, recorder.held) == (0, 0)
