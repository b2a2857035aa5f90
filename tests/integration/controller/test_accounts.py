"""Users, named tokens and one's own password."""

import httpx2

from tests.integration.controller import shapes
from tests.integration.controller.installation import (
    ADMIN_PASSWORD,
    PASSWORD,
    Running,
    client,
)

NEW = {"username": "mara", "password": "at least twelve", "role": "operator"}


async def test_an_administrator_makes_lists_and_deletes_users(admin: httpx2.AsyncClient) -> None:
    made = await admin.post("/users", json=NEW | {"selector": "env in (a,b),!old"})
    assert made.status_code == 201
    shapes.check(made.json(), shapes.USER)
    users = (await admin.get("/users")).json()
    shapes.check(users, [shapes.USER])
    assert [u["username"] for u in users] == ["admin", "agents", "mara", "olga", "prod", "vera"]
    deleted = await admin.delete("/users/mara")
    assert (deleted.status_code, deleted.content) == (204, b"")
    shapes.check_problem(await admin.delete("/users/mara"), 404, "user_not_found")


async def test_a_name_is_taken_once(admin: httpx2.AsyncClient) -> None:
    shapes.check_problem(
        await admin.post("/users", json=NEW | {"username": "olga"}), 409, "user_exists"
    )


async def test_an_account_has_a_good_name_password_role_and_selector(
    admin: httpx2.AsyncClient,
) -> None:
    for change, code in (
        ({"username": ""}, "validation_error"),
        ({"username": "a b"}, "validation_error"),
        ({"password": "too short"}, "validation_error"),
        ({"role": "root"}, "validation_error"),
        ({"selector": "env=="}, None),
        ({"selector": "a b c"}, "invalid_selector"),
        ({"extra": 1}, "validation_error"),
    ):
        answer = await admin.post("/users", json=NEW | change)
        if code is not None:
            body = shapes.check_problem(answer, 422, code)
            assert NEW["password"] not in str(body)


async def test_a_refused_password_is_not_repeated(admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/users", json=NEW | {"password": "sesame-12"})
    shapes.check_problem(answer, 422, "validation_error")
    assert "sesame" not in answer.text


async def test_the_last_administrator_stays(admin: httpx2.AsyncClient) -> None:
    shapes.check_problem(await admin.delete("/users/admin"), 409, "last_administrator")
    await admin.post("/users", json=NEW | {"role": "admin"})
    assert (await admin.delete("/users/admin")).status_code == 204
    shapes.check_problem(await admin.get("/me"), 401, "unauthorized")


async def test_accounts_are_for_administrators(controller: Running) -> None:
    for name in ("olga", "vera", "prod"):
        async with controller.http(name) as http:
            shapes.check_problem(await http.get("/users"), 403, "forbidden")
            shapes.check_problem(await http.post("/users", json=NEW), 403, "forbidden")
            shapes.check_problem(await http.delete("/users/vera"), 403, "forbidden")


async def test_a_named_token_is_shown_once_and_good_where_its_owner_is(
    controller: Running, admin: httpx2.AsyncClient
) -> None:
    made = await admin.post("/tokens", json={"name": "ci"})
    assert made.status_code == 201
    shapes.check(made.json(), shapes.TOKEN_INFO | {"token": str})
    listed = (await admin.get("/tokens")).json()
    shapes.check(listed, [shapes.TOKEN_INFO])
    assert [t["token_id"] for t in listed] == [made.json()["token_id"]]
    secret = made.json()["token"]
    async with client(controller.url, secret) as http:
        assert (await http.get("/users")).status_code == 200
        assert (await admin.delete(f"/tokens/{listed[0]['token_id']}")).status_code == 204
        shapes.check_problem(await http.get("/users"), 401, "unauthorized")
    for file in controller.data_dir.iterdir():
        assert secret.encode() not in file.read_bytes()


async def test_a_token_is_never_above_its_owner(controller: Running) -> None:
    async with controller.http("olga") as http:
        wanted = {"name": "t", "role": "admin"}
        shapes.check_problem(await http.post("/tokens", json=wanted), 403, "forbidden")
        made = (await http.post("/tokens", json={"name": "t", "role": "viewer"})).json()
    async with client(controller.url, made["token"]) as http:
        assert (await http.get("/me")).json()["role"] == "viewer"


async def test_a_token_of_a_limited_user_is_limited_as_well(controller: Running) -> None:
    async with controller.http("prod") as http:
        made = (await http.post("/tokens", json={"name": "t", "selector": "role=web"})).json()
    assert made["selector"] == "env=prod,role=web"
    async with client(controller.url, made["token"]) as http:
        me = (await http.get("/me")).json()
    assert set(me["selector"].split(",")) == {"env=prod", "role=web"}


async def test_a_token_of_another_user_does_not_exist(
    admin: httpx2.AsyncClient, vera: httpx2.AsyncClient
) -> None:
    made = (await admin.post("/tokens", json={"name": "t"})).json()
    assert (await vera.get("/tokens")).json() == []
    answer = await vera.delete(f"/tokens/{made['token_id']}")
    shapes.check_problem(answer, 404, "token_not_found")


async def test_a_token_ends_when_it_was_to_end(
    controller: Running, admin: httpx2.AsyncClient
) -> None:
    made = (await admin.post("/tokens", json={"name": "t", "expires_in": 0.001})).json()
    shapes.check(made["expires_at"], shapes.TIME)
    async with client(controller.url, made["token"]) as http:
        shapes.check_problem(await http.get("/me"), 401, "token_expired")


async def test_a_token_ends_with_its_owner(controller: Running, admin: httpx2.AsyncClient) -> None:
    async with controller.http("vera") as http:
        made = (await http.post("/tokens", json={"name": "t"})).json()
    assert (await admin.delete("/users/vera")).status_code == 204
    for token in (made["token"], controller.installation.users["vera"]):
        async with client(controller.url, token) as http:
            shapes.check_problem(await http.get("/me"), 401, "unauthorized")


async def test_a_password_is_changed_by_who_knows_it(
    admin: httpx2.AsyncClient, nobody: httpx2.AsyncClient
) -> None:
    body = {"current_password": "wrong", "new_password": "a longer and new one"}
    answer = await admin.post("/me/password", json=body)
    shapes.check_problem(answer, 401, "invalid_credentials")
    answer = await admin.post("/me/password", json=body | {"current_password": ADMIN_PASSWORD})
    assert (answer.status_code, answer.content) == (204, b"")
    for password, status in ((ADMIN_PASSWORD, 401), ("a longer and new one", 200)):
        form = {"username": "admin", "password": password}
        assert (await nobody.post("/token", data=form)).status_code == status


async def test_a_limited_users_selector_is_shown(controller: Running) -> None:
    async with controller.http("prod") as http:
        me = (await http.get("/me")).json()
    assert me == {"username": "prod", "role": "operator", "selector": "env=prod"}
    assert PASSWORD not in str(me)
