"""A variable that a service reads is in its example and in the documentation, and no other is."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from agent.settings import Settings as AgentSettings
from app.settings import Settings as ControllerSettings

ROOT = Path(__file__).resolve().parents[2]
SERVICES = [
    pytest.param("controller_service", "Controller", ControllerSettings, id="controller"),
    pytest.param("agent_service", "Agent", AgentSettings, id="agent"),
]


@pytest.mark.parametrize(("folder", "_heading", "settings"), SERVICES)
def test_the_example_names_every_variable_and_no_other(
    folder: str, _heading: str, settings: type[BaseSettings]
) -> None:
    assert _example(ROOT / folder / ".env.example") == _variables(settings)


@pytest.mark.parametrize(("_folder", "heading", "settings"), SERVICES)
def test_the_documentation_names_every_variable_and_no_other(
    _folder: str, heading: str, settings: type[BaseSettings]
) -> None:
    assert _documented(heading) == _variables(settings)


@pytest.mark.parametrize("folder", ["controller_service", "agent_service", "redis_service", "."])
def test_no_example_holds_a_secret(folder: str) -> None:
    text = (ROOT / folder / ".env.example").read_text()
    values = re.findall(
        r"^(?:\w*(?:PASSWORD|SECRET|PASSPHRASE|TOKEN|API_KEY)\w*)=(.*)$", text, re.MULTILINE
    )
    assert [value for value in values if value and not value.isdigit()] == []


def test_compose_names_every_variable_of_its_example_and_no_other() -> None:
    compose = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert _example(ROOT / ".env.example") == compose


def _example(path: Path) -> set[str]:
    return set(re.findall(r"^([A-Z][A-Z0-9_]*)=", path.read_text(), re.MULTILINE))


def _variables(settings: type[BaseSettings]) -> set[str]:
    return {name.upper() for name in settings.model_fields}


def _documented(heading: str) -> set[str]:
    """The names in the first column of the table under `heading`."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    first_cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return {name for cell in first_cells for name in re.findall(r"`([A-Z][A-Z0-9_]*)`", cell)}
