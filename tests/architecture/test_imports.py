"""The direction of imports, as the contracts in pyproject.toml fix it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("sdk", "controller_service", "agent_service")
FORBIDDEN = [
    pytest.param("controller_service/app/domain/errors.py", "pydantic", id="a-framework"),
    pytest.param("controller_service/app/domain/errors.py", "app.application", id="outwards"),
    pytest.param("controller_service/app/wire.py", "ogent.client", id="the-client-in-a-service"),
    pytest.param("agent_service/agent/wire.py", "app.domain.errors", id="the-other-service"),
]


def test_every_import_contract_is_kept() -> None:
    result = _lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("file", "module"), FORBIDDEN)
def test_a_forbidden_import_breaks_a_contract(tmp_path: Path, file: str, module: str) -> None:
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as source:
        source.write(f"\nimport {module}\n")
    result = _lint_imports(tmp_path)
    assert result.returncode == 1
    assert "1 broken" in result.stdout, result.stdout + result.stderr


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(folder / name) for name in SOURCES)},
        capture_output=True,
        text=True,
        timeout=120,
    )
