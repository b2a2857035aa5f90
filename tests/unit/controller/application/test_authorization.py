"""May this principal do that to this object: every role, every verb, with and without selector."""

import pytest

from app.application.authorization import NEEDED, Verb, authorize, may_see
from app.domain.errors import AgentNotFound, Denied
from app.domain.models.user import Role
from tests.builders import a_principal, an_agent

SEEING = {
    Verb.SEE_SELF,
    Verb.MANAGE_OWN_TOKENS,
    Verb.CHANGE_OWN_PASSWORD,
    Verb.SEE_AGENTS,
    Verb.SEE_COMMANDS,
}
ALLOWED = {
    Role.AGENT: set(),
    Role.VIEWER: SEEING,
    Role.OPERATOR: SEEING | {Verb.EXECUTE, Verb.CONTROL},
    Role.ADMIN: set(Verb),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verb", Verb)
def test_a_role_may_do_what_it_may_and_nothing_else(role: Role, verb: Verb) -> None:
    for agent in (None, an_agent()):
        if verb in ALLOWED[role]:
            authorize(a_principal(role), verb, agent)
        else:
            with pytest.raises(Denied):
                authorize(a_principal(role), verb, agent)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verb", Verb)
def test_outside_the_selector_every_role_is_told_that_there_is_none(role: Role, verb: Verb) -> None:
    agent = an_agent(labels={"env": "prod"})
    with pytest.raises(AgentNotFound) as caught:
        authorize(a_principal(role, "env=test"), verb, agent)
    assert caught.value.message == f"there is no agent {agent.id}"


@pytest.mark.parametrize(
    ("selectors", "is_seen"),
    [
        ((), True),
        (("env=prod",), True),
        (("env=prod", "zone=a"), True),
        (("env=prod", "zone=b"), False),
        (("env=test", "zone=a"), False),
    ],
)
def test_every_selector_has_to_match(selectors: tuple[str, ...], is_seen: bool) -> None:
    agent = an_agent(labels={"env": "prod", "zone": "a"})
    assert may_see(a_principal(Role.ADMIN, *selectors), agent) is is_seen


def test_every_verb_needs_a_role() -> None:
    assert set(NEEDED) == set(Verb)
