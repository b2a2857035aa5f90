"""Who somebody is: by password, by signed token and by named token."""

import pytest

from app.application.ports.security import Claims
from app.application.tokens import is_named_token
from app.application.use_cases.manage_tokens import WantedToken
from app.application.use_cases.sign_in import Authenticate
from app.domain.errors import (
    Denied,
    InvalidCredentials,
    TokenExpired,
    TooManyAttempts,
    Unauthenticated,
)
from app.domain.ids import AgentId, UserName
from app.domain.models.user import Role, User
from tests.builders import ALICE, WEB, a_user, later
from tests.fakes.fake_security import FakeTokens
from tests.fakes.in_memory_controller import InMemoryController

PASSWORD = "correct horse battery"
HERE = "192.0.2.1"


def an_account(**overrides: object) -> User:
    return a_user(**{"password_hash": f"hash of {PASSWORD}", **overrides})


async def refusal(controller: InMemoryController, username: str, password: str) -> str:
    with pytest.raises(InvalidCredentials) as caught:
        await controller.sign_in(username, password, address=HERE)
    return caught.value.message


async def named_token(controller: InMemoryController, **wanted: object) -> str:
    """A named token of ALICE."""
    user = await controller.users.get(ALICE)
    token, _ = controller.tokens.issue(user.name)
    principal = await controller.authenticate(token)
    shown, _ = await controller.manage_tokens.create(
        principal, WantedToken(**{"name": "ci", **wanted})
    )
    return shown


async def test_a_password_gives_a_token_that_is_the_users(controller: InMemoryController) -> None:
    await controller.keep(an_account(selector="env=prod"))
    token, claims = await controller.sign_in(ALICE, PASSWORD, address=HERE)
    principal = await controller.authenticate(token)
    assert (principal.name, principal.role) == (ALICE, Role.OPERATOR)
    assert principal.selector_text == "env=prod"
    assert principal.expires_at == claims.expires_at == later(30 * 60)
    assert controller.attempts.failures == []


async def test_unknown_wrong_and_disabled_are_answered_alike(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_account(), an_account(name=UserName("off"), is_disabled=True))
    answers = [
        await refusal(controller, "nobody", PASSWORD),
        await refusal(controller, ALICE, "wrong"),
        await refusal(controller, "off", PASSWORD),
    ]
    assert len(set(answers)) == 1
    assert len(controller.attempts.failures) == 3


async def test_an_unknown_user_costs_a_verification_as_well(
    controller: InMemoryController,
) -> None:
    await refusal(controller, "nobody", PASSWORD)
    assert controller.hasher.verified == [None]


async def test_repeated_failures_are_slowed_down_before_any_password_is_tried(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_account())
    for _ in range(3):
        await refusal(controller, ALICE, "wrong")
    with pytest.raises(TooManyAttempts):
        await controller.sign_in(ALICE, PASSWORD, address=HERE)
    assert len(controller.hasher.verified) == 3
    await controller.sign_in(ALICE, PASSWORD, address="192.0.2.2")


@pytest.mark.parametrize("role", Role)
async def test_agents_tokens_are_for_agents_and_administrators(
    controller: InMemoryController, role: Role
) -> None:
    await controller.keep(an_account(role=role))
    if role in (Role.AGENT, Role.ADMIN):
        token, _ = await controller.sign_in(ALICE, PASSWORD, address=HERE, agent_id=WEB)
        assert await controller.authenticate.agent(token) == WEB
        with pytest.raises(Unauthenticated):
            await controller.authenticate(token)
    else:
        with pytest.raises(Denied):
            await controller.sign_in(ALICE, PASSWORD, address=HERE, agent_id=WEB)


async def test_an_agents_account_gets_no_users_token(controller: InMemoryController) -> None:
    await controller.keep(an_account(role=Role.AGENT))
    with pytest.raises(Denied):
        await controller.sign_in(ALICE, PASSWORD, address=HERE)


async def test_a_users_token_does_not_open_the_agents_door(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_account(role=Role.ADMIN))
    token, _ = await controller.sign_in(ALICE, PASSWORD, address=HERE)
    with pytest.raises(Unauthenticated):
        await controller.authenticate.agent(token)


async def test_an_agents_token_ends_with_its_accounts_right(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_account(role=Role.AGENT))
    token, _ = await controller.sign_in(ALICE, PASSWORD, address=HERE, agent_id=AgentId("x"))
    await controller.users.replace(an_account(role=Role.OPERATOR))
    with pytest.raises(Unauthenticated):
        await controller.authenticate.agent(token)


async def test_a_signed_token_has_the_rights_that_its_account_has_now(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_account())
    token, _ = await controller.sign_in(ALICE, PASSWORD, address=HERE)
    await controller.users.replace(an_account(role=Role.VIEWER, selector="env=test"))
    principal = await controller.authenticate(token)
    assert (principal.role, principal.selector_text) == (Role.VIEWER, "env=test")


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_token_ends_with_its_account(
    controller: InMemoryController, is_named: bool
) -> None:
    await controller.keep(an_account())
    token, _ = await controller.sign_in(ALICE, PASSWORD, address=HERE)
    if is_named:
        token = await named_token(controller)
    await controller.users.replace(an_account(is_disabled=True))
    with pytest.raises(Unauthenticated):
        await controller.authenticate(token)
    await controller.users.remove(ALICE)
    with pytest.raises(Unauthenticated):
        await controller.authenticate(token)


@pytest.mark.parametrize("token", ["", "ogt_", "ogt_unknown", "not.a.token"])
async def test_an_unknown_token_is_nobodys(controller: InMemoryController, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await controller.authenticate(token)


async def test_a_named_token_is_its_owner_within_its_limits(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_account(selector="env=prod"))
    token = await named_token(controller, role=Role.VIEWER, selector="zone=a")
    principal = await controller.authenticate(token)
    assert is_named_token(token)
    assert (principal.name, principal.role, principal.expires_at) == (ALICE, Role.VIEWER, None)
    assert {r.name for s in principal.selectors for r in s.requirements} == {"env", "zone"}


@pytest.mark.parametrize(
    ("owner_is", "token_is", "role"),
    [
        (Role.VIEWER, Role.ADMIN, Role.VIEWER),
        (Role.OPERATOR, Role.ADMIN, Role.OPERATOR),
        (Role.ADMIN, Role.OPERATOR, Role.OPERATOR),
        (Role.AGENT, Role.VIEWER, Role.AGENT),
    ],
)
async def test_a_named_token_never_rises_above_its_owner(
    controller: InMemoryController, owner_is: Role, token_is: Role, role: Role
) -> None:
    await controller.keep(an_account(role=token_is))
    token = await named_token(controller)
    await controller.users.replace(an_account(role=owner_is))
    assert (await controller.authenticate(token)).role is role


async def test_a_named_token_expires_at_its_time(controller: InMemoryController) -> None:
    await controller.keep(an_account())
    token = await named_token(controller, expires_in_s=10)
    controller.clock.advance(9.9)
    assert (await controller.authenticate(token)).expires_at == later(10)
    controller.clock.advance(0.1)
    with pytest.raises(TokenExpired):
        await controller.authenticate(token)


async def test_who_an_agents_token_was_given_to_is_in_it_and_may_lose_the_right(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_account(role=Role.AGENT))
    token, _ = controller.tokens.issue(ALICE, agent_id=WEB)
    assert controller.authenticate.agent_account(token) == ALICE
    await controller.authenticate.require_agent_account(ALICE)
    await controller.users.replace(an_account(role=Role.VIEWER))
    with pytest.raises(Unauthenticated):
        await controller.authenticate.require_agent_account(ALICE)


class LaxTokens(FakeTokens):
    """Takes a token of any kind for an agent's."""

    def read_agent(self, token: str) -> Claims:
        return self.read_user(token)


async def test_a_token_that_names_no_agent_opens_no_door_whoever_took_it(
    controller: InMemoryController,
) -> None:
    await controller.keep(an_account(role=Role.ADMIN))
    tokens = LaxTokens(controller.clock)
    authenticate = Authenticate(users=controller.users, tokens=tokens, clock=controller.clock)
    with pytest.raises(Unauthenticated):
        await authenticate.agent(tokens.issue(ALICE)[0])
