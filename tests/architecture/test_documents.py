"""The documents are true to the code where they are made from it, and lead somewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MADE = [
    pytest.param("state_diagrams.py", "docs/state-machines.md", "paused --> running", id="states"),
    pytest.param("error_table.py", "docs/http-api.md", "| 409 | `agent_offline` |", id="errors"),
]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


@pytest.mark.parametrize(("script", "document", "_line"), MADE)
def test_what_is_made_from_the_code_is_up_to_date(script: str, document: str, _line: str) -> None:
    result = _check(script, ROOT / document)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("script", "document", "line"), MADE)
def test_a_changed_line_is_found_and_mended(
    tmp_path: Path, script: str, document: str, line: str
) -> None:
    text = (ROOT / document).read_text()
    assert line in text
    copy = tmp_path / "document.md"
    copy.write_text(text.replace(line, "something else"))
    assert _check(script, copy).returncode == 1
    assert _run(script, str(copy)).returncode == 0
    assert copy.read_text() == text


def test_every_relative_link_leads_to_a_file_or_a_heading() -> None:
    broken = [
        f"{document.relative_to(ROOT)}: {link}"
        for document in _documents()
        for link in _links(document)
        if not _leads_somewhere(document, link)
    ]
    assert broken == []


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# One heading\n\n[a](b.md) [b](#one-heading) [c](#two) [d](a.md#three)\n")
    broken = [link for link in _links(document) if not _leads_somewhere(document, link)]
    assert broken == ["b.md", "#two", "a.md#three"]


def _check(script: str, document: Path) -> subprocess.CompletedProcess[str]:
    return _run(script, "--check", str(document))


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def _documents() -> Iterator[Path]:
    """Every Markdown file of the repository, installed packages and caches aside."""
    for path in sorted(ROOT.rglob("*.md")):
        parts = path.relative_to(ROOT).parts
        if not any(part.startswith(".") or part == "node_modules" for part in parts):
            yield path


def _links(document: Path) -> list[str]:
    """Links within the repository; code blocks hold none."""
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = [first or second for first, second in LINK.findall(prose)]
    return [link for link in found if not re.match(r"\w+:", link)]


def _leads_somewhere(document: Path, link: str) -> bool:
    name, _, fragment = link.partition("#")
    target = (document.parent / name) if name else document
    if not target.exists():
        return False
    return not fragment or fragment in _headings(target)


def _headings(document: Path) -> set[str]:
    """The fragments of a document's headings, as the usual hosts make them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
