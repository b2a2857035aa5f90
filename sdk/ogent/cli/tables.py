"""Rows on stdout: a table on a terminal, tab-separated text elsewhere; every cell is escaped."""

import sys
from collections.abc import Sequence

from ogent.cli.render import escape

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


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` under `columns`; a last column that is too long is folded, never cut."""
    escaped = [[escape(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _show_table(columns, escaped)
        return
    for row in [[column.upper() for column in columns], *escaped]:
        print("\t".join(row))


def show_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line; empty values are left out."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value:
            print(f"{name:<{width}}  {escape(value)}")


def _show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), overflow="fold", no_wrap=column == columns[0])
    for row in rows:
        # Text, not str: a str is markup, and a cell may hold anything.
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(file=sys.stdout, highlight=False).print(table)
