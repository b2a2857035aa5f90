"""Roles include each other, and the agent's none."""

import pytest

from app.domain.models.user import Role, at_least

ORDER = [Role.VIEWER, Role.OPERATOR, Role.ADMIN]


@pytest.mark.parametrize("role", ORDER)
@pytest.mark.parametrize("needed", ORDER)
def test_a_role_includes_the_ones_below(role: Role, needed: Role) -> None:
    assert at_least(role, needed) is (ORDER.index(role) >= ORDER.index(needed))


@pytest.mark.parametrize("needed", Role)
def test_the_agents_role_includes_nothing(needed: Role) -> None:
    assert not at_least(Role.AGENT, needed)
