"""Every UserRepository keeps accounts and named tokens."""

from dataclasses import replace

import pytest

from app.domain.errors import LastAdministrator, TokenNotFound, UserExists, UserNotFound
from app.domain.ids import TokenId, UserName
from app.domain.models.user import Role
from tests.builders import ALICE, a_named_token, a_user, later
from tests.contract.conftest import Storage

BOB = UserName("bob")


async def test_an_account_comes_back_as_it_was_stored(storage: Storage) -> None:
    user = a_user(selector="env=prod", is_disabled=True)
    await storage.users.add(user)
    assert await storage.users.get(ALICE) == user


async def test_a_taken_name_is_refused_and_nothing_changes(storage: Storage) -> None:
    user = a_user()
    await storage.users.add(user)
    with pytest.raises(UserExists):
        await storage.users.add(a_user(role=Role.ADMIN))
    assert await storage.users.all() == [user]


async def test_an_unknown_account_is_not_found(storage: Storage) -> None:
    with pytest.raises(UserNotFound):
        await storage.users.get(ALICE)
    with pytest.raises(UserNotFound):
        await storage.users.replace(a_user())
    with pytest.raises(UserNotFound):
        await storage.users.remove(ALICE)


async def test_all_are_sorted_by_name(storage: Storage) -> None:
    for name in ("carol", "alice", "bob"):
        await storage.users.add(a_user(name=UserName(name)))
    assert [user.name for user in await storage.users.all()] == ["alice", "bob", "carol"]


async def test_a_replaced_account_is_the_new_one(storage: Storage) -> None:
    user, other = a_user(), a_user(name=BOB)
    await storage.users.add(user)
    await storage.users.add(other)
    changed = replace(user, password_hash="new", role=Role.VIEWER, selector="a=b")
    await storage.users.replace(changed)
    assert await storage.users.all() == [changed, other]


async def test_a_removed_account_is_gone_with_its_tokens(storage: Storage) -> None:
    await storage.users.add(a_user())
    await storage.users.add(a_user(name=BOB))
    gone, kept = a_named_token(), a_named_token(owner=BOB)
    await storage.users.add_token(gone)
    await storage.users.add_token(kept)
    await storage.users.remove(ALICE)
    assert [user.name for user in await storage.users.all()] == [BOB]
    assert await storage.users.token_by_digest(gone.digest) is None
    assert await storage.users.token_by_digest(kept.digest) == kept


async def test_the_last_administrator_stays(storage: Storage) -> None:
    await storage.users.add(a_user(role=Role.ADMIN))
    await storage.users.add(a_user(name=BOB, role=Role.ADMIN, is_disabled=True))
    await storage.users.add(a_user(name=UserName("carol")))
    with pytest.raises(LastAdministrator):
        await storage.users.remove(ALICE)
    assert len(await storage.users.all()) == 3


async def test_one_of_two_administrators_may_go(storage: Storage) -> None:
    await storage.users.add(a_user(role=Role.ADMIN))
    await storage.users.add(a_user(name=BOB, role=Role.ADMIN))
    await storage.users.remove(ALICE)
    with pytest.raises(LastAdministrator):
        await storage.users.remove(BOB)


async def test_a_token_is_found_by_its_digest(storage: Storage) -> None:
    await storage.users.add(a_user())
    token = a_named_token(selector="env=prod", expires_at=later(60))
    await storage.users.add_token(token)
    await storage.users.add_token(a_named_token())
    assert await storage.users.token_by_digest(token.digest) == token
    assert await storage.users.token_by_digest("another") is None


async def test_tokens_are_their_owners_oldest_first(storage: Storage) -> None:
    await storage.users.add(a_user())
    await storage.users.add(a_user(name=BOB))
    mine = [a_named_token(), a_named_token()]
    for token in (mine[1], a_named_token(owner=BOB), mine[0]):
        await storage.users.add_token(token)
    assert await storage.users.tokens(ALICE) == mine


async def test_nobody_gets_a_token_for_an_account_that_is_gone(storage: Storage) -> None:
    token = a_named_token()
    with pytest.raises(UserNotFound):
        await storage.users.add_token(token)
    assert await storage.users.token_by_digest(token.digest) is None


async def test_only_ones_own_tokens_can_be_removed(storage: Storage) -> None:
    await storage.users.add(a_user())
    token = a_named_token()
    await storage.users.add_token(token)
    for owner, token_id in ((BOB, token.id), (ALICE, TokenId("another"))):
        with pytest.raises(TokenNotFound):
            await storage.users.remove_token(owner, token_id)
    await storage.users.remove_token(ALICE, token.id)
    assert await storage.users.tokens(ALICE) == []
