"""Named tokens are never above the one who makes them, and nobody else's business."""

import pytest

from app.application.tokens import is_named_token, new_named_token, token_digest
from app.application.use_cases.manage_tokens import WantedToken
from app.domain.errors import Denied, Invalid, InvalidSelector, TokenNotFound
from app.domain.ids import TokenId
from app.domain.models.user import Role
from tests.builders import ALICE, NOW, a_principal, a_user, later
from tests.fakes.in_memory_controller import InMemoryController

BELOW = {
    Role.VIEWER: {Role.VIEWER},
    Role.OPERATOR: {Role.VIEWER, Role.OPERATOR},
    Role.ADMIN: {Role.VIEWER, Role.OPERATOR, Role.ADMIN},
}


async def test_a_token_is_stored_as_its_digest_alone(controller: InMemoryController) -> None:
    await controller.keep(a_user())
    token, stored = await controller.manage_tokens.create(
        a_principal(), WantedToken(name="ci", expires_in_s=60)
    )
    assert stored.digest == token_digest(token) != token
    assert (stored.owner, stored.role, stored.created_at) == (ALICE, Role.OPERATOR, NOW)
    assert stored.expires_at == later(60)
    assert await controller.manage_tokens.all(a_principal()) == [stored]


@pytest.mark.parametrize("role", BELOW)
@pytest.mark.parametrize("wanted", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
async def test_no_token_is_above_the_one_who_makes_it(
    controller: InMemoryController, role: Role, wanted: Role
) -> None:
    await controller.keep(a_user(role=role))
    making = controller.manage_tokens.create(a_principal(role), WantedToken(name="x", role=wanted))
    if wanted in BELOW[role]:
        assert (await making)[1].role is wanted
    else:
        with pytest.raises(Denied):
            await making
        assert await controller.users.tokens(ALICE) == []


@pytest.mark.parametrize(
    ("own", "wanted", "stored"),
    [
        ((), None, None),
        ((), "zone=a", "zone=a"),
        (("env=prod",), None, "env=prod"),
        (("env=prod",), "zone=a", "env=prod,zone=a"),
    ],
)
async def test_ones_own_selector_narrows_the_token_as_well(
    controller: InMemoryController, own: tuple[str, ...], wanted: str | None, stored: str | None
) -> None:
    await controller.keep(a_user())
    principal = a_principal(Role.OPERATOR, *own)
    _, token = await controller.manage_tokens.create(
        principal, WantedToken(name="x", selector=wanted)
    )
    assert token.selector == stored


async def test_a_selector_that_is_none_stores_nothing(controller: InMemoryController) -> None:
    await controller.keep(a_user())
    with pytest.raises(InvalidSelector):
        await controller.manage_tokens.create(
            a_principal(), WantedToken(name="x", selector="env=prod,")
        )
    assert await controller.users.tokens(ALICE) == []


async def test_a_deleted_token_is_gone_and_others_are_not_ones_own(
    controller: InMemoryController,
) -> None:
    await controller.keep(a_user())
    _, token = await controller.manage_tokens.create(a_principal(), WantedToken(name="x"))
    stranger = a_principal(Role.ADMIN, name="bob")
    assert await controller.manage_tokens.all(stranger) == []
    for principal, token_id in ((stranger, token.id), (a_principal(), TokenId("another"))):
        with pytest.raises(TokenNotFound):
            await controller.manage_tokens.delete(principal, token_id)
    await controller.manage_tokens.delete(a_principal(), token.id)
    assert await controller.manage_tokens.all(a_principal()) == []


async def test_an_agents_account_has_no_tokens(controller: InMemoryController) -> None:
    agent = a_principal(Role.AGENT)
    with pytest.raises(Denied):
        await controller.manage_tokens.create(agent, WantedToken(name="x"))
    with pytest.raises(Denied):
        await controller.manage_tokens.all(agent)
    with pytest.raises(Denied):
        await controller.manage_tokens.delete(agent, TokenId("x"))


def test_named_tokens_are_told_from_others_and_differ() -> None:
    tokens = {new_named_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(is_named_token(token) and len(token) > 40 for token in tokens)
    assert not is_named_token("eyJhbGciOi")


async def test_a_named_token_is_no_agents(controller: InMemoryController) -> None:
    with pytest.raises(Invalid):
        await controller.manage_tokens.create(
            a_principal(Role.ADMIN), WantedToken(name="x", role=Role.AGENT)
        )
