"""Parts of documents that are made from the code, between two comments that readers do not see.

A part begins with a line `<!-- NAME: made by scripts/... -->` and ends with `<!-- end of NAME -->`.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class PartMissing(Exception):
    """A document has no place for a part; the message says which comments it needs."""


def run(description: str, document: Path, parts: Mapping[str, str]) -> int:
    """Write `parts` into the document, or with --check only compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when out of date")
    parser.add_argument("document", nargs="?", type=Path, default=document)
    parsed = parser.parse_args()
    old = parsed.document.read_text()
    try:
        new = replaced(old, parts)
    except PartMissing as exc:
        print(f"{parsed.document}: {exc}", file=sys.stderr)
        return 2
    if new == old:
        return 0
    if parsed.check:
        script = Path(sys.argv[0]).name
        print(f"{parsed.document} is out of date: run scripts/{script}", file=sys.stderr)
        return 1
    parsed.document.write_text(new)
    return 0


def replaced(text: str, parts: Mapping[str, str]) -> str:
    """`text` with the inside of every part as it should be; raises PartMissing."""
    for name, inside in parts.items():
        pattern = rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- end of {name} -->)"
        place = re.search(pattern, text, re.DOTALL)
        if place is None:
            raise PartMissing(f"no '<!-- {name}: … -->' and '<!-- end of {name} -->'")
        text = f"{text[: place.end(1)]}\n{inside}\n{text[place.start(2) :]}"
    return text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; it ends with a newline."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
