"""POST /token, GET /me, and what is taken for a token."""

import base64
import hashlib
import hmac
import json
import time

import httpx2
import pytest

from app.settings import Settings
from tests.integration.controller import shapes
from tests.integration.controller.installation import (
    ADMIN_PASSWORD,
    PASSWORD,
    Running,
    client,
    serving,
)


async def test_a_user_signs_in(nobody: httpx2.AsyncClient) -> None:
    answer = await nobody.post("/token", data={"username": "admin", "password": ADMIN_PASSWORD})
    assert answer.status_code == 200
    shapes.check(answer.json(), {"access_token": str, "token_type": "bearer", "expires_in": float})
    assert answer.json()["expires_in"] == 1800
    nobody.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    me = (await nobody.get("/me")).json()
    assert me == {"username": "admin", "role": "admin", "selector": None}


async def test_an_unknown_user_and_a_wrong_password_look_the_same(
    nobody: httpx2.AsyncClient,
) -> None:
    answers = [
        await nobody.post("/token", data={"username": name, "password": "wrong"})
        for name in ("admin", "no-such-user")
    ]
    for answer in answers:
        shapes.check_problem(answer, 401, "invalid_credentials")
    assert answers[0].content == answers[1].content
    assert answers[0].headers["www-authenticate"] == "Bearer"


async def test_a_form_without_a_password_is_a_validation_error(nobody: httpx2.AsyncClient) -> None:
    shapes.check_problem(
        await nobody.post("/token", data={"username": "admin"}), 422, "validation_error"
    )


async def test_repeated_failures_have_to_wait(nobody: httpx2.AsyncClient) -> None:
    for _ in range(10):
        answer = await nobody.post("/token", data={"username": "x", "password": "y"})
        shapes.check_problem(answer, 401, "invalid_credentials")
    answer = await nobody.post("/token", data={"username": "x", "password": "y"})
    shapes.check_problem(answer, 429, "too_many_attempts")
    assert 1 <= int(answer.headers["retry-after"]) <= 300
    other = await nobody.post("/token", data={"username": "admin", "password": ADMIN_PASSWORD})
    assert other.status_code == 200


async def test_only_agents_and_administrators_get_an_agents_token(
    nobody: httpx2.AsyncClient,
) -> None:
    for name, password, status in (
        ("agents", PASSWORD, 200),
        ("admin", ADMIN_PASSWORD, 200),
        ("olga", PASSWORD, 403),
    ):
        form = {"username": name, "password": password, "scope": "agent:a-1"}
        assert (await nobody.post("/token", data=form)).status_code == status


async def test_an_agents_account_does_not_sign_in_as_a_user(nobody: httpx2.AsyncClient) -> None:
    answer = await nobody.post("/token", data={"username": "agents", "password": PASSWORD})
    shapes.check_problem(answer, 403, "forbidden")


async def test_a_scope_names_an_agent_as_agents_are_named(nobody: httpx2.AsyncClient) -> None:
    for scope in ("admin", "agent:", "agent:a b", "agent:../a", "agent:" + "x" * 65, "agent:-a"):
        form = {"username": "agents", "password": PASSWORD, "scope": scope}
        shapes.check_problem(await nobody.post("/token", data=form), 422, "validation_error")


async def test_everything_but_the_open_routes_needs_a_token(nobody: httpx2.AsyncClient) -> None:
    paths = (await nobody.get("/openapi.json")).json()["paths"]
    for path, methods in paths.items():
        for method in methods:
            answer = await nobody.request(method, path.replace("{", "").replace("}", ""), json={})
            if path in ("/health", "/ready"):
                assert answer.status_code == 200
            elif path != "/token":
                shapes.check_problem(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_agents_token_opens_nothing_here(controller: Running) -> None:
    async with client(controller.url, controller.installation.agents["web-1"]) as http:
        for path in ("/me", "/agents", "/commands", "/tokens", "/users"):
            shapes.check_problem(await http.get(path), 401, "unauthorized")


CLAIMS = {"sub": "admin", "aud": "ogent", "typ": "user", "jti": "0123456789"}


def jwt(key: str, *, alg: str = "HS256", drop: str = "", **changes: object) -> str:
    """A token made by hand."""
    times = {"iat": int(time.time()), "exp": int(time.time()) + 600}
    body = {k: v for k, v in {**CLAIMS, **times, **changes}.items() if k != drop}
    parts = [_b64(json.dumps(part).encode()) for part in ({"alg": alg, "typ": "JWT"}, body)]
    digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}.get(alg)
    text = ".".join(parts)
    seal = hmac.digest(key.encode(), text.encode(), digest) if digest else b""
    return f"{text}.{_b64(seal)}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def key(controller: Running) -> str:
    return (controller.data_dir / "secret-key").read_text().strip()


async def test_a_token_made_by_hand_with_the_right_key_is_good(
    controller: Running, key: str
) -> None:
    async with client(controller.url, jwt(key)) as http:
        assert (await http.get("/me")).status_code == 200


async def test_a_forged_token_is_refused(controller: Running, key: str) -> None:
    good = controller.installation.users["admin"]
    head, body, seal = good.split(".")
    forged = [
        jwt("another key that is long enough as well"),
        jwt("", alg="none"),
        jwt(key, alg="none"),
        jwt(key, alg="HS384"),
        jwt(key, alg="HS512"),
        jwt(key, aud="ogent-agent"),
        jwt(key, aud="elsewhere"),
        jwt(key, typ="agent"),
        jwt(key, sub="no-such-user"),
        jwt(key, sub=7),
        *(jwt(key, drop=claim) for claim in ("exp", "iat", "aud", "sub", "jti", "typ")),
        f"{head}.{body}.{'A' * len(seal)}",
        f"{head}.{body}.",
        f"{head}.{body}",
        "ogt_" + hashlib.sha256(b"guess").hexdigest(),
        "x" * 5000,
        "not-a-token",
    ]
    async with client(controller.url, None) as http:
        for token in forged:
            headers = {"Authorization": f"Bearer {token}"}
            shapes.check_problem(await http.get("/me", headers=headers), 401, "unauthorized")


async def test_an_expired_token_says_so(controller: Running, key: str) -> None:
    expired = jwt(key, exp=int(time.time()) - 5, iat=int(time.time()) - 60)
    async with client(controller.url, expired) as http:
        shapes.check_problem(await http.get("/me"), 401, "token_expired")


async def test_another_scheme_than_bearer_is_no_token(
    controller: Running, nobody: httpx2.AsyncClient
) -> None:
    good = controller.installation.users["admin"]
    for value in ("", "Bearer", f"Basic {good}", good):
        answer = await nobody.get("/me", headers={"Authorization": value})
        shapes.check_problem(answer, 401, "unauthorized")


async def test_another_installation_knows_none_of_its_tokens(
    controller: Running, settings: Settings
) -> None:
    other = settings.model_copy(update={"data_dir": settings.data_dir.with_name("other")})
    token = controller.installation.users["admin"]
    async with serving(other) as (url, _), client(url, token) as http:
        shapes.check_problem(await http.get("/me"), 401, "unauthorized")
