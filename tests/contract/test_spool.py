"""What every Spool does; the one of files is filled by a real recorder."""

import os
import random
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.application.ports.spool import Spool
from agent.domain.errors import SpoolUnreadable
from agent.domain.ids import CommandId
from agent.domain.models.output import (
    CHUNK_MAX_BYTES,
    DIGEST_BLOCK_BYTES,
    BlockDigest,
    Chunk,
    Missing,
    Position,
    Stream,
)
from agent.infrastructure.runner import recorder
from agent.infrastructure.storage import file_spool
from agent.infrastructure.storage.file_spool import OPEN_MAX
from tests.fakes.agent_ports import C
from tests.fakes.spool_homes import HOMES, FileHome, SpoolHome

D = CommandId("d")
OUT, ERR = Stream.STDOUT, Stream.STDERR
MIB = 1024 * 1024


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SpoolHome]:
    home = HOMES[request.param](tmp_path)
    yield home
    home.close()


def taken(spool: Spool, command_id: CommandId = C) -> list[Chunk]:
    """Every chunk that is there now; each follows exactly on the one before."""
    chunks: list[Chunk] = []
    while (chunk := spool.next_chunk(command_id)) is not None:
        assert 1 <= len(chunk.data) <= CHUNK_MAX_BYTES
        if chunks:
            before = chunks[-1].after
            assert (chunk.seq, chunk.offset, chunk.other) == (
                before.next_seq,
                before.bytes_of(chunk.stream),
                before.bytes_of(chunk.stream.other),
            )
        chunks.append(chunk)
    return chunks


def data_of(chunks: list[Chunk], stream: Stream = OUT) -> bytes:
    return b"".join(chunk.data for chunk in chunks if chunk.stream is stream)


def digest_of(data: bytes) -> str:
    digest = BlockDigest()
    digest.update(data)
    return digest.hexdigest()


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_a_command_that_wrote_nothing_has_nothing_to_give(home: SpoolHome) -> None:
    assert home.spool.next_chunk(C) is None
    totals = home.spool.totals(C)
    assert (totals.next_seq, totals.stdout.sent, totals.stdout.digest) == (0, 0, digest_of(b""))
    home.spool.forget(C)


def test_both_streams_are_given_in_the_order_in_which_they_came(home: SpoolHome) -> None:
    for data, stream in ((b"one", OUT), (b"two", ERR), (b"three", OUT)):
        home.write(data, stream)
    chunks = taken(home.spool)
    assert [(c.stream, c.data) for c in chunks] == [(OUT, b"one"), (ERR, b"two"), (OUT, b"three")]


def test_what_comes_later_is_given_later_and_nothing_twice(home: SpoolHome) -> None:
    for number in range(30):
        home.write(b"%d;" % number)
        assert data_of(taken(home.spool)) == b"%d;" % number
    assert taken(home.spool) == []


def test_the_account_agrees_with_what_was_given(home: SpoolHome) -> None:
    out, err = some_bytes(3 * MIB + 17), some_bytes(5)
    home.write(out)
    home.write(err, ERR)
    home.spool.finish(C, home.written())
    chunks = taken(home.spool)
    assert (data_of(chunks), data_of(chunks, ERR)) == (out, err)
    totals = home.spool.totals(C)
    assert (totals.next_seq, totals.stdout.sent, totals.stderr.sent) == (len(chunks), len(out), 5)
    assert (totals.stdout.digest, totals.stderr.digest) == (digest_of(out), digest_of(err))
    assert (totals.stdout.written, totals.missing) == (len(out), ())


def test_no_character_is_split_except_at_the_end(home: SpoolHome) -> None:
    text = "aä€😀" * 100_000
    for at in range(0, len(text.encode()), 99_991):
        home.write(text.encode()[at : at + 99_991])
    home.write(b"\xe2\x82")
    chunks = taken(home.spool)
    for chunk in chunks:
        chunk.data.decode()
    home.spool.finish(C, home.written())
    (last,) = taken(home.spool)
    assert (data_of(chunks).decode(), last.data) == (text, b"\xe2\x82")


@pytest.mark.parametrize("restarts", [False, True])
def test_it_is_read_on_from_any_place(home: SpoolHome, restarts: bool) -> None:
    out, err = some_bytes(2 * MIB + 5), some_bytes(MIB)
    for at in range(0, len(out), 300_000):
        home.write(out[at : at + 300_000])
        home.write(err[at : at + 300_000], ERR)
    home.spool.finish(C, home.written())
    for place in (0, 1, MIB - 1, MIB, MIB + 1, len(out) - 1, len(out), 70_000):
        if restarts:
            home.reopen()
            home.spool.finish(C, home.written())
        there = min(place, len(err))
        home.spool.seek(C, Position(9, place, there))
        chunks = taken(home.spool)
        assert (data_of(chunks), data_of(chunks, ERR)) == (out[place:], err[there:])
        totals = home.spool.totals(C)
        assert (totals.stdout.digest, totals.missing) == (digest_of(out), ())
        assert totals.stderr.digest == digest_of(err)


def test_acknowledging_takes_nothing_away_that_is_still_to_be_given(home: SpoolHome) -> None:
    out = some_bytes(4 * MIB)
    given = b""
    for at in range(0, len(out), 100_000):
        home.write(out[at : at + 100_000])
        for chunk in taken(home.spool):
            given += chunk.data
            for _ in range(2):
                home.spool.acknowledge(C, chunk.after)
    home.spool.finish(C, home.written())
    assert given == out
    assert home.spool.totals(C).stdout.digest == digest_of(out)


@pytest.mark.parametrize("restart_at", [1, MIB // 3, MIB, MIB + 1, 3 * MIB])
def test_what_was_acknowledged_needs_not_be_there_for_the_account_after_a_restart(
    home: SpoolHome, restart_at: int
) -> None:
    out = some_bytes(3 * MIB + 99)
    home.write(out[:restart_at])
    place = taken(home.spool)[-1].after
    home.spool.acknowledge(C, place)
    home.reopen()
    home.spool.seek(C, place)
    home.spool.acknowledge(C, place)
    home.write(out[restart_at:])
    home.spool.finish(C, home.written())
    assert data_of(taken(home.spool)) == out[place.stdout_bytes :]
    totals = home.spool.totals(C)
    assert (totals.stdout.digest, totals.stdout.sent) == (digest_of(out), len(out))
    assert totals.missing == ()


def test_commands_do_not_mix(home: SpoolHome) -> None:
    home.write(b"c")
    home.write(b"d", command_id=D)
    assert data_of(taken(home.spool)) == b"c"
    home.spool.forget(C)
    assert data_of(taken(home.spool, D)) == b"d"


def test_what_was_disowned_is_proven_no_more(home: SpoolHome) -> None:
    home.write(b"abc")
    taken(home.spool)
    home.spool.finish(C, home.written())
    home.spool.disown(C)
    totals = home.spool.totals(C)
    assert (totals.stdout.digest, totals.missing) == ("", (Missing(OUT, 0, 3),))


# --- of files alone -----------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FileHome]:
    home = FileHome(tmp_path)
    yield home
    home.close()


def open_names() -> set[str]:
    """The files of C that this process has open, without what their names begin with."""
    links = Path("/proc/self/fd").iterdir()
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]
    names = [Path(target.removesuffix(" (deleted)")).name for target in targets]
    return {name.removeprefix(f"{C}.") for name in names if name.startswith(f"{C}.")}


def names(home: FileHome) -> list[str]:
    return sorted(path.name.partition(".")[2] for path in home.folder.glob("c.*"))


def test_files_that_nobody_needs_are_told_to_go(files: FileHome) -> None:
    out = some_bytes(3 * MIB + 5)
    files.write(out)
    for chunk in taken(files.spool):
        files.spool.acknowledge(C, chunk.after)
    assert names(files) == ["index-00000000", "progress", "stdout-00000003"]
    assert files.usage.held == 0
    assert files.told[-1][0].stdout == len(out)
    assert files.told[-1][1].stdout == 3 * DIGEST_BLOCK_BYTES


def test_digests_that_a_full_disk_does_not_take_keep_nothing_and_are_written_later(
    files: FileHome, caplog: pytest.LogCaptureFixture
) -> None:
    files.write(some_bytes(2 * MIB + 5))
    chunks = taken(files.spool)
    files.path("progress").mkdir()  # nothing can be written there
    files.spool.acknowledge(C, chunks[-1].after)
    assert files.told[-1][1].stdout == 2 * MIB  # else a full disk would never have room again
    assert "is tried again" in caplog.text
    files.path("progress").rmdir()
    files.spool.acknowledge(C, chunks[-1].after)
    assert files.told[-1][1].stdout == 2 * MIB
    files.reopen()
    files.spool.seek(C, chunks[-1].after)
    files.spool.finish(C, files.written())
    assert files.spool.totals(C).stdout.digest == digest_of(some_bytes(2 * MIB + 5))


def test_forgetting_a_command_is_told_to_who_owns_the_folder(files: FileHome) -> None:
    files.write(b"c")
    taken(files.spool)
    files.spool.forget(C)
    assert files.forgotten == [C]


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "x" * 200, "ü", "."])
def test_no_id_of_a_command_leads_out_of_the_spool(files: FileHome, name: str) -> None:
    path = files.path("facts", CommandId(name))
    stem = path.name.removesuffix(".facts")
    assert path.parent == files.folder
    assert stem.isascii() and 0 < len(stem) <= 64 and "." not in stem


def test_times_are_those_at_which_it_came(files: FileHome) -> None:
    files.write(b"c")
    (chunk,) = taken(files.spool)
    assert chunk.at.tzinfo is not None
    assert abs(chunk.at.timestamp() - files.path("stdout-00000000").stat().st_mtime) < 5


def test_beyond_the_bound_output_is_counted_and_not_kept(tmp_path: Path) -> None:
    home = FileHome(tmp_path, max_bytes=5)
    home.write("aaa€".encode())
    home.write(b"b", ERR)
    home.spool.finish(C, home.written())
    chunks = taken(home.spool)
    totals = home.spool.totals(C)
    home.close()
    assert [chunk.data for chunk in chunks] == [b"aaa"]
    assert (totals.stdout.written, totals.stdout.sent, totals.stderr.written) == (6, 3, 1)
    assert (totals.missing, totals.stdout.digest) == ((), digest_of(b"aaa"))


def test_a_file_that_cannot_be_read_is_a_gap(files: FileHome) -> None:
    out = some_bytes(2 * MIB + 5)
    files.write(out)
    segment = files.path("stdout-00000001")
    segment.unlink()
    segment.mkdir()  # opening it works, reading fails
    files.spool.finish(C, files.written())
    assert data_of(taken(files.spool)) == out[:MIB] + out[2 * MIB :]
    assert files.spool.totals(C).missing == (Missing(OUT, MIB, MIB),)


def test_an_index_that_cannot_be_read_costs_what_it_covers(files: FileHome) -> None:
    files.write(b"abc")
    index = files.path("index-00000000")
    index.unlink()
    index.mkdir()
    files.spool.finish(C, files.written())
    assert taken(files.spool) == []
    assert files.spool.totals(C).missing == (Missing(OUT, 0, 3),)


def test_a_progress_file_that_cannot_be_read_costs_the_proof(files: FileHome) -> None:
    files.write(b"abc")
    files.path("progress").mkdir()
    files.spool.finish(C, files.written())
    assert data_of(taken(files.spool)) == b"abc"
    assert files.spool.totals(C).stdout.digest == ""


def test_few_files_are_open_however_many_commands_are_read(files: FileHome) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        command_id = CommandId(f"c{number}")
        files.write(b"x", command_id=command_id)
        files.recorder(command_id).close()
        assert files.spool.next_chunk(command_id) is not None
    pipes = 4 * 200
    assert len(os.listdir("/proc/self/fd")) - before - pipes <= OPEN_MAX


def test_what_was_removed_takes_no_room_by_being_open(files: FileHome) -> None:
    files.write(some_bytes(3 * DIGEST_BLOCK_BYTES + 1))
    sent = taken(files.spool)
    assert open_names() >= {"stdout-00000000", "stdout-00000003"}
    files.spool.acknowledge(C, sent[-1].after)
    assert {name for name in open_names() if "stdout" in name} == {"stdout-00000003"}


def test_a_part_of_the_index_that_was_read_takes_no_room_by_being_open(
    files: FileHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_spool, "INDEX_RECORDS", 2)
    monkeypatch.setattr(recorder, "INDEX_RECORDS", 2)
    for number in range(5):
        files.write(b"x", (OUT, ERR)[number % 2])
    assert len(taken(files.spool)) == 5
    assert {name for name in open_names() if "index" in name} == {"index-00000002"}


def test_too_many_open_files_are_no_damage(files: FileHome) -> None:
    files.write(b"whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(SpoolUnreadable):
            files.spool.next_chunk(C)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    chunk = files.spool.next_chunk(C)
    assert chunk is not None
    assert chunk.data == b"whole"
