"""Stored output as pages of lines and as exact bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.application import output_lines
from app.application.output_lines import LinePage, WantedLines, read_lines
from app.application.use_cases import read_output
from app.domain.errors import CommandNotFound, InvalidFilter, OutputDamaged
from app.domain.models.command import Command
from app.domain.models.output import Chunk, Missing, Stream
from app.domain.models.states import State
from app.domain.models.user import Role
from tests.builders import WEB, a_command_in, a_principal, an_outcome_after, chunks_of
from tests.fakes.in_memory_controller import InMemoryController

OUT, ERR = Stream.STDOUT, Stream.STDERR
TEN = chunks_of(*(((OUT, ERR)[n % 2], b"line %d\n" % n) for n in range(10)))


async def wrote(
    controller: InMemoryController, chunks: list[Chunk], *, is_final: bool = True
) -> Command:
    """A command that wrote `chunks`."""
    command = a_command_in(State.RUNNING)
    await controller.keep(command)
    session = await controller.register(WEB, command.id)
    reports = [*chunks, an_outcome_after(chunks)] if is_final else chunks
    await controller.report(session, command.id, *reports)
    return await controller.commands.get(command.id)


async def page(
    controller: InMemoryController, command: Command, pattern: str | None = None, **wanted: object
) -> LinePage:
    return await controller.read_output.lines(
        a_principal(Role.VIEWER), command.id, WantedLines(**wanted), pattern=pattern
    )


def texts(found: LinePage) -> list[str]:
    return [line.text for line in found.lines]


async def test_a_page_of_everything_is_complete(controller: InMemoryController) -> None:
    found = await page(controller, await wrote(controller, TEN))
    assert texts(found) == [f"line {n}" for n in range(10)]
    assert [line.number for line in found.lines] == list(range(10))
    assert (found.total_lines, found.matched_lines) == (10, 10)
    assert (found.next_offset, found.is_complete) == (None, True)


async def test_numbers_are_the_same_whatever_is_wanted(controller: InMemoryController) -> None:
    command = await wrote(controller, TEN)
    stderr = await page(controller, command, stream=ERR)
    assert [line.number for line in stderr.lines] == [1, 3, 5, 7, 9]
    matching = await page(controller, command, r"line [2-5]$")
    assert [line.number for line in matching.lines] == [2, 3, 4, 5]
    assert matching.matched_lines == 4


async def test_a_full_page_says_where_to_go_on(controller: InMemoryController) -> None:
    command = await wrote(controller, TEN)
    found, offset = [], 0
    while offset is not None:
        one = await page(controller, command, limit=3, offset=offset)
        found += texts(one)
        assert len(one.lines) <= 3
        assert one.is_complete is (one.next_offset is None)
        offset = one.next_offset
    assert found == [f"line {n}" for n in range(10)]


async def test_a_running_command_is_never_complete_and_goes_on(
    controller: InMemoryController,
) -> None:
    chunks = chunks_of(b"one\ntw", b"o\nthr", b"ee")
    command = await wrote(controller, chunks[:2], is_final=False)
    found = await page(controller, command)
    assert (texts(found), found.next_offset, found.is_complete) == (["one", "two"], 2, False)
    session = await controller.register(WEB, command.id)
    await controller.report(session, command.id, *chunks[2:], an_outcome_after(chunks))
    rest = await page(controller, command, offset=2)
    assert (texts(rest), rest.next_offset, rest.is_complete) == (["three"], None, True)
    assert rest.total_lines == 3


async def test_gaps_are_named(controller: InMemoryController) -> None:
    command = a_command_in(State.RUNNING)
    await controller.keep(command)
    session = await controller.register(WEB, command.id)
    gap = Missing(OUT, 0, 5)
    await controller.report(session, command.id, an_outcome_after([], missing=[gap]))
    assert list((await page(controller, command)).missing) == [gap]


async def test_a_scan_out_of_time_goes_on_where_it_stopped(
    controller: InMemoryController, monkeypatch
) -> None:
    command = await wrote(controller, TEN)
    monkeypatch.setattr(output_lines, "SCAN_MAX_S", -1.0)
    none = await page(controller, command, offset=4)
    assert (texts(none), none.next_offset, none.is_complete) == ([], 4, False)


async def test_a_page_is_bounded_in_bytes(controller: InMemoryController, monkeypatch) -> None:
    command = await wrote(controller, TEN)
    monkeypatch.setattr(output_lines, "PAGE_MAX_BYTES", 20)
    first = await page(controller, command)
    assert (len(first.lines), first.next_offset) == (4, 4)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(Stream), st.integers(1, 5), st.integers(0, 9)), max_size=14),
    st.integers(1, 40),
)
async def test_pages_of_long_output_are_the_lines_of_the_whole(pieces, limit: int) -> None:
    # Pieces of about 256 KiB: a mark falls due every few of them.
    chunks = chunks_of(
        *((s, (b"x" * (50_000 * size // lines) + b"\n") * lines if lines else b"y" * 250_000)
          for s, size, lines in pieces)
    )  # fmt: skip
    controller = InMemoryController()
    command = await wrote(controller, chunks)
    whole = await read_lines(controller.output, command, WantedLines(limit=10_000))
    found, offset = [], 0
    while offset is not None:
        one = await read_lines(controller.output, command, WantedLines(limit=limit, offset=offset))
        found += one.lines
        offset = one.next_offset
    assert [(x.number, x.stream, x.data) for x in found] == [
        (x.number, x.stream, x.data) for x in whole.lines
    ]
    assert whole.total_lines == len(whole.lines)


async def test_a_bad_pattern_is_refused(controller: InMemoryController) -> None:
    command = await wrote(controller, TEN)
    with pytest.raises(InvalidFilter):
        await page(controller, command, "(")


async def test_output_out_of_sight_is_not_found(controller: InMemoryController) -> None:
    command = await wrote(controller, TEN)
    stranger = a_principal(Role.ADMIN, "env=test")
    with pytest.raises(CommandNotFound):
        await controller.read_output.lines(stranger, command.id, WantedLines(), pattern=None)


async def test_bytes_are_exact_in_bounded_reads(
    controller: InMemoryController, monkeypatch
) -> None:
    command = await wrote(controller, TEN)
    stdout = b"".join(chunk.data for chunk in TEN if chunk.stream is OUT)
    monkeypatch.setattr(read_output, "READ_MAX_BYTES", 5)
    for start, end in ((0, len(stdout)), (3, 17), (6, 7), (4, 4)):
        pieces = [
            piece
            async for piece in controller.read_output.bytes_of(command, OUT, start=start, end=end)
        ]
        assert b"".join(pieces) == stdout[start:end]
        assert all(len(piece) <= 5 for piece in pieces)


async def test_bytes_that_are_not_all_there_are_said_to_be_damaged(
    controller: InMemoryController,
) -> None:
    command = await wrote(controller, TEN)
    with pytest.raises(OutputDamaged):
        async for _ in controller.read_output.bytes_of(command, OUT, start=0, end=10_000):
            pass
