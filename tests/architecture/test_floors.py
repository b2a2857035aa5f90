"""Versions below these have holes that are public: nothing may install or allow them."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {
    "asyncssh": "2.23.1",
    "h11": "0.16",
    "langchain-core": "1.2.5",
    "python-engineio": "4.13.3",
    "python-multipart": "0.0.31",
    "python-socketio": "5.16.3",
    "starlette": "1.3.1",
}
#: What a user gets who installs a service without constraints.txt.
REQUIRED = {
    "controller_service": {
        "h11",
        "python-engineio",
        "python-multipart",
        "python-socketio",
        "starlette",
    },
    "agent_service": {"python-engineio", "python-socketio"},
}


def test_no_pinned_version_is_below_its_floor() -> None:
    pinned = {requirement.name: requirement for requirement in _requirements(_constraints())}
    below = [
        str(pinned[name])
        for name, floor in FLOORS.items()
        if name in pinned and not _only_from(pinned[name], Version(floor))
    ]
    assert below == []
    assert {"python-socketio", "python-engineio", "starlette"} <= pinned.keys()


@pytest.mark.parametrize("service", sorted(REQUIRED))
def test_no_distribution_allows_a_version_below_its_floor(service: str) -> None:
    declared = {requirement.name: requirement for requirement in _dependencies(service)}
    for name in sorted(REQUIRED[service]):
        assert name in declared, f"{service} gets {name} without a floor"
        assert _only_from(declared[name], Version(FLOORS[name])), declared[name]


def test_the_test_tools_allow_no_version_below_its_floor() -> None:
    for requirement in _requirements((ROOT / "requirements-dev.in").read_text().splitlines()):
        floor = FLOORS.get(requirement.name)
        assert floor is None or _only_from(requirement, Version(floor)), requirement


def _only_from(requirement: Requirement, floor: Version) -> bool:
    """Whether the requirement's own lower bound is at the floor or above it."""
    lowest = [Version(s.version) for s in requirement.specifier if s.operator in {">=", "==", "~="}]
    return bool(lowest) and max(lowest) >= floor


def _constraints() -> list[str]:
    return (ROOT / "constraints.txt").read_text().splitlines()


def _requirements(lines: list[str]) -> Iterator[Requirement]:
    for line in lines:
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text:
            yield Requirement(text)


def _dependencies(folder: str) -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    return _requirements([*project["dependencies"], *(line for extra in extras for line in extra)])
