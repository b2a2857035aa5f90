"""What the files of the repository may not contain: traces of where they were written."""

import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tracked_text() -> dict[str, str]:
    """Every tracked text file by its name, as it is in this checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return {name: text for name in names if (text := _text(ROOT / name)) is not None}


def test_no_file_names_the_folder_it_was_written_in(tracked_text: dict[str, str]) -> None:
    entries = "|".join(re.escape(path.name) for path in ROOT.iterdir())
    own = re.compile(rf"(?<![\w.]){re.escape(str(ROOT))}/(?:{entries})\b")
    somebodys = re.compile(r"(?:/Users|(?<![\w.])/home)/(?!ogent\b|me\b|\$)\w+")
    assert _naming(own, tracked_text) == []
    assert _naming(somebodys, tracked_text) == []


def test_no_file_names_a_package_index(tracked_text: dict[str, str]) -> None:
    option = re.compile(
        r"--(?:extra-)?index-url[ =]\S*//|^(?:extra-)?index-url *[=:]", re.MULTILINE
    )
    assert _naming(option, tracked_text) == []
    for host in _hosts_of_this_machines_indexes():
        assert _naming(re.compile(re.escape(host)), tracked_text) == []


def test_the_constraints_are_versions_alone(tracked_text: dict[str, str]) -> None:
    lines = tracked_text["constraints.txt"].splitlines()
    one = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [a-z_]+ [<>=!]+ '[\w.-]+'( and .*)?)?")
    assert [line for line in lines if not one.fullmatch(line)] == []
    assert len(lines) > 50


def test_no_file_holds_a_private_key(tracked_text: dict[str, str]) -> None:
    key = re.compile(r"^-{5}BEGIN [A-Z ]*PRIVATE KEY-{5}", re.MULTILINE)
    assert _naming(key, tracked_text) == []


def _naming(pattern: re.Pattern[str], files: dict[str, str]) -> list[str]:
    return [name for name, text in files.items() if pattern.search(text)]


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (UnicodeDecodeError, FileNotFoundError):  # an image; removed and not yet committed
        return None


def _hosts_of_this_machines_indexes() -> set[str]:
    """Hosts that pip is configured with here, the public index aside."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    urls = re.findall(r"\w+://[^\s']+", listed.stdout)
    hosts = {urllib.parse.urlsplit(url).hostname for url in urls}
    return {host for host in hosts if host} - {"pypi.org", "localhost"}
