"""Take out one safeguard at a time, in a clone, and see that a test turns red.

    python scripts/teeth.py [WORD…]

tries those whose name holds a WORD, or all. Prints a table, and ends with 1 where a test stays
green. The clone is of what is committed; nothing of this checkout is touched.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETUP_TIMEOUT_S = 900.0
TEST_TIMEOUT_S = 900.0

JOURNAL = "agent_service/agent/infrastructure/storage/file_journal.py"
SPOOL = "agent_service/agent/infrastructure/storage/file_spool.py"
RECORDS = "agent_service/agent/infrastructure/runner/records.py"
ACCEPT = "agent_service/agent/application/use_cases/accept_order.py"
REPOSITORY = "controller_service/app/infrastructure/repositories/sql_command_repository.py"
COMMAND = "controller_service/app/domain/models/command.py"


class NoTeeth(Exception):
    """The script cannot be carried out; the message says why."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A text of a file, which is there once, and what stands there without the safeguard."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Safeguard:
    """What keeps a promise, how it is taken out, and the tests of which one has to turn red."""

    name: str
    removals: tuple[Removal, ...]
    tests: tuple[str, ...]


SAFEGUARDS = (
    Safeguard(
        "fsync before the acknowledgement",
        (
            Removal(
                JOURNAL,
                "whole(self._descriptor, data)\n            os.fdatasync(self._descriptor)\n",
                "whole(self._descriptor, data)\n",
            ),
        ),
        ("tests/faults/test_disks.py", "-k", "keeps_nothing"),
    ),
    Safeguard(
        "epoch of a report",
        (Removal(REPOSITORY, "if row.newest_epoch != session.epoch:", "if False:"),),
        ("tests/contract/test_command_repository.py", "tests/integration/controller"),
    ),
    Safeguard(
        "an order that is known is not accepted again",
        (
            Removal(ACCEPT, "        if known is not None:\n            return known\n", ""),
            Removal(
                JOURNAL,
                "        if self._state.known(order.id) is not None:\n            return False\n",
                "",
            ),
        ),
        ("tests/faults/test_repeated_orders.py",),
    ),
    Safeguard(
        "checksum of the spool's bytes",
        (Removal(SPOOL, "if grown.crc == crc:", "if True:"),),
        ("tests/faults/test_damage.py", "-k", "spool and flip"),
    ),
    Safeguard(
        "checksum of the journal's records",
        (Removal(RECORDS, '(struct.pack("<I", length) + payload) == crc', '(b"") == 0'),),
        ("tests/integration/agent/test_file_journal.py",),
    ),
    Safeguard(
        "digest of a result",
        (Removal(COMMAND, "if not outcome.is_of(self.stored, self.digests):", "if False:"),),
        ("tests/unit/controller/domain", "tests/integration/controller"),
    ),
)


def main(words: list[str]) -> int:
    """Try the safeguards that are meant; the exit status."""
    wanted = [s for s in SAFEGUARDS if not words or any(word in s.name for word in words)]
    try:
        with tempfile.TemporaryDirectory(prefix="teeth-") as folder:
            clone = _clone(Path(folder) / "clone")
            rows = [(guard, _first_red(clone, guard)) for guard in wanted]
    except (NoTeeth, subprocess.SubprocessError) as exc:
        print(f"teeth: {exc}", file=sys.stderr)
        return 2
    print("| safeguard taken out | test that turns red |\n| --- | --- |")
    for guard, red in rows:
        print(f"| {guard.name} | {f'`{red}`' if red else '**none**'} |")
    return 0 if all(red for _, red in rows) else 1


def _clone(folder: Path) -> Path:
    _run(["git", "clone", "--quiet", str(ROOT), str(folder)], ROOT, SETUP_TIMEOUT_S)
    done = _run(["make", "setup"], folder, SETUP_TIMEOUT_S)
    if done.returncode != 0:
        raise NoTeeth(f"make setup failed in the clone:\n{done.stdout}")
    return folder


def _first_red(clone: Path, guard: Safeguard) -> str | None:
    """The first test that fails without the safeguard and passes with it."""
    originals = {removal.path: (clone / removal.path).read_text() for removal in guard.removals}
    try:
        for removal in guard.removals:
            _take_out(clone / removal.path, removal)
        without = _tested(clone, guard.tests)
    finally:
        for path, text in originals.items():
            (clone / path).write_text(text)
    red = [line.split()[1] for line in without.splitlines() if line.startswith("FAILED ")]
    print(f"--- {guard.name}: {without.splitlines()[-1]}", file=sys.stderr)
    if not red:
        print(without[-3000:], file=sys.stderr)
        return None
    with_it = _tested(clone, (red[0],))
    return red[0] if " passed" in with_it and " failed" not in with_it else None


def _tested(clone: Path, tests: tuple[str, ...]) -> str:
    """What pytest says of `tests`, up to the first that fails."""
    python = str(clone / ".venv" / "bin" / "python")
    # No bytecode: that of the same second and size would be taken for the present one's.
    options = ["-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    return _run([python, *options, *tests], clone, TEST_TIMEOUT_S).stdout


def _take_out(path: Path, removal: Removal) -> None:
    text = path.read_text()
    if text.count(removal.before) != 1:
        raise NoTeeth(f"{removal.path} does not hold once: {removal.before!r}")
    path.write_text(text.replace(removal.before, removal.after))


def _run(argv: list[str], folder: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own programs
        argv,
        cwd=folder,
        timeout=timeout_s,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
