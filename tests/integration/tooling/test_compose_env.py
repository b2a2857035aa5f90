"""`make compose-env` writes secrets once."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAMES = {"ADMIN_PASSWORD", "AGENT_PASSWORD", "REDIS_PASSWORD"}


def test_every_required_secret_is_random_and_its_own(tmp_path: Path) -> None:
    first, second = (_secrets(_write(tmp_path / name)) for name in ("first", "second"))
    assert first.keys() == second.keys() == NAMES
    values = [*first.values(), *second.values()]
    assert len(set(values)) == 2 * len(NAMES)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    assert _write(tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("ADMIN_PASSWORD=mine\n")
    assert _write(file).read_text() == "ADMIN_PASSWORD=mine\n"


def _write(file: Path) -> Path:
    subprocess.run(["sh", "scripts/compose_env.sh", file], cwd=ROOT, check=True, timeout=20)
    return file


def _secrets(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+_PASSWORD)=(.*)$", file.read_text(), re.MULTILINE))
