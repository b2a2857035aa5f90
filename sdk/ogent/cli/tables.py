"""Rows on stdout: a table on a terminal, tab-separated text elsewhere; every cell is escaped."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ogent.cli.render import escape, when, when_shortly

#: Columns of the screen that the folded column is to have.
FLEXIBLE_MIN_WIDTH: Final = 20

_STYLES = {
    "online": "green",
    "offline": "red",
    "succeeded": "green",
    "running": "cyan",
    "paused": "yellow",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "rejected": "red",
}


def show_rows(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    flexible: str,
    spare: Sequence[str] = (),
) -> None:
    """Print `rows` under `columns`.

    On a terminal only the column `flexible` is folded, and where it would have less than
    FLEXIBLE_MIN_WIDTH, columns in `spare` are left out, the first one first.
    """
    escaped = [[escape(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _show_table(columns, escaped, flexible, spare)
        return
    for row in [[column.upper() for column in columns], *escaped]:
        print("\t".join(row))


def moment(at: datetime | None) -> str:
    """A time for a cell: short on a terminal, whole elsewhere."""
    return when_shortly(at, datetime.now(UTC)) if sys.stdout.isatty() else when(at)


def show_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line; empty values are left out."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value:
            print(f"{name:<{width}}  {escape(value)}")


def _show_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], flexible: str, spare: Sequence[str]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    shown = _fitting(columns, rows, flexible, spare, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place in shown:
        column = columns[place]
        table.add_column(column.upper(), overflow="fold", no_wrap=column != flexible)
    for row in rows:
        # Text, not str: a str is markup, and a cell may hold anything.
        table.add_row(*(Text(row[place], style=_STYLES.get(row[place], "")) for place in shown))
    console.print(table)


def _fitting(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    flexible: str,
    spare: Sequence[str],
    width: int,
) -> list[int]:
    """The places of the columns that leave the flexible one its least width, if they can."""
    from rich.cells import cell_len

    taken = {
        column: 1 + max(cell_len(row[place]) for row in [columns, *rows])
        for place, column in enumerate(columns)
        if column != flexible
    }
    for column in spare:
        if width - sum(taken.values()) < FLEXIBLE_MIN_WIDTH:
            del taken[column]
    return [place for place, column in enumerate(columns) if column in {*taken, flexible}]
