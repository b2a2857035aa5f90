"""Accounts: the administrator's part and one's own."""

import pytest

from app.application.use_cases.manage_users import NewAccount
from app.domain.errors import (
    Denied,
    InvalidCredentials,
    InvalidSelector,
    LastAdministrator,
    UserExists,
    UserNotFound,
)
from app.domain.ids import UserName
from app.domain.models.user import Role
from tests.builders import ALICE, NOW, a_principal, a_user
from tests.fakes.in_memory_controller import InMemoryController

ADMIN = a_principal(Role.ADMIN)
BOB = UserName("bob")
WANTED = NewAccount(name=BOB, password="a new password", role=Role.VIEWER, selector="env=prod")


async def test_an_account_is_made_with_a_hash(controller: InMemoryController) -> None:
    made = await controller.manage_users.create(ADMIN, WANTED)
    assert await controller.manage_users.all(ADMIN) == [made]
    assert (made.name, made.role, made.selector) == (BOB, Role.VIEWER, "env=prod")
    assert (made.password_hash, made.created_at) == ("hash of a new password", NOW)


async def test_a_refused_account_is_not_stored(controller: InMemoryController) -> None:
    bad = NewAccount(name=BOB, password="x", role=Role.VIEWER, selector="env=prod,")
    with pytest.raises(InvalidSelector):
        await controller.manage_users.create(ADMIN, bad)
    await controller.manage_users.create(ADMIN, WANTED)
    with pytest.raises(UserExists):
        await controller.manage_users.create(ADMIN, WANTED)
    assert len(await controller.users.all()) == 1


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.AGENT])
async def test_only_administrators_manage_accounts(
    controller: InMemoryController, role: Role
) -> None:
    await controller.keep(a_user())
    with pytest.raises(Denied):
        await controller.manage_users.create(a_principal(role), WANTED)
    with pytest.raises(Denied):
        await controller.manage_users.all(a_principal(role))
    with pytest.raises(Denied):
        await controller.manage_users.delete(a_principal(role), ALICE)
    assert await controller.users.all() == [a_user()]


async def test_a_deleted_account_is_gone_but_the_last_administrator_stays(
    controller: InMemoryController,
) -> None:
    await controller.keep(a_user(role=Role.ADMIN), a_user(name=BOB))
    await controller.manage_users.delete(ADMIN, BOB)
    with pytest.raises(UserNotFound):
        await controller.manage_users.delete(ADMIN, BOB)
    with pytest.raises(LastAdministrator):
        await controller.manage_users.delete(ADMIN, ALICE)


async def test_the_first_administrator_is_made_once(controller: InMemoryController) -> None:
    first = NewAccount(name=ALICE, password="first", role=Role.ADMIN)
    assert await controller.manage_users.ensure_first_administrator(first)
    again = NewAccount(name=BOB, password="second", role=Role.ADMIN)
    assert not await controller.manage_users.ensure_first_administrator(again)
    (user,) = await controller.users.all()
    assert (user.name, user.password_hash) == (ALICE, "hash of first")


async def test_a_reset_password_enables_the_account_again(controller: InMemoryController) -> None:
    await controller.keep(a_user(is_disabled=True))
    await controller.manage_users.reset_password(ALICE, "fresh")
    user = await controller.users.get(ALICE)
    assert (user.password_hash, user.is_disabled) == ("hash of fresh", False)
    with pytest.raises(UserNotFound):
        await controller.manage_users.reset_password(BOB, "fresh")


async def test_ones_own_password_needs_the_old_one(controller: InMemoryController) -> None:
    await controller.keep(a_user(password_hash="hash of old"))
    with pytest.raises(InvalidCredentials):
        await controller.change_own_password(a_principal(), "wrong", "new")
    assert (await controller.users.get(ALICE)).password_hash == "hash of old"
    await controller.change_own_password(a_principal(), "old", "new")
    assert (await controller.users.get(ALICE)).password_hash == "hash of new"


async def test_an_agents_account_does_not_change_its_password(
    controller: InMemoryController,
) -> None:
    await controller.keep(a_user(role=Role.AGENT, password_hash="hash of old"))
    with pytest.raises(Denied):
        await controller.change_own_password(a_principal(Role.AGENT), "old", "new")
