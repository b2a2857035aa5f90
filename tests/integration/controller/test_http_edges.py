"""What every route shares: malformed requests, bounds, documentation, health."""

from collections.abc import AsyncIterator

import httpx2

from tests.integration.controller import shapes

EXECUTE = "/agents/web-1/execute"
JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024


async def test_malformed_json_is_said_and_where(admin: httpx2.AsyncClient) -> None:
    for content in (b"{", b"", b"\xff\xfe", b'{"command": "a",}', b"nul", b"[" * 10_000):
        answer = await admin.post(EXECUTE, content=content, headers=JSON)
        assert answer.status_code in (400, 422), (content, answer.text)
        shapes.check_problem(answer, answer.status_code, answer.json()["code"])


async def test_a_body_over_4_mib_is_refused_by_its_declared_length(
    admin: httpx2.AsyncClient,
) -> None:
    answer = await admin.post(EXECUTE, content=b" " * (4 * MIB + 1), headers=JSON)
    shapes.check_problem(answer, 413, "body_too_large")


async def test_a_body_over_4_mib_is_refused_without_a_declared_length(
    admin: httpx2.AsyncClient,
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * MIB

    answer = await admin.post(EXECUTE, content=endless(), headers=JSON)
    shapes.check_problem(answer, 413, "body_too_large")


async def test_a_route_or_method_that_is_not_there_is_a_problem_too(
    admin: httpx2.AsyncClient,
) -> None:
    shapes.check_problem(await admin.get("/no-such-route"), 404, "not_found")
    shapes.check_problem(await admin.put("/commands"), 405, "method_not_allowed")


async def test_a_socket_path_without_its_protocol_is_no_crash(nobody: httpx2.AsyncClient) -> None:
    for path in ("/socket.io/", "/socket.io/?EIO=3&transport=polling", "/socket.io/?sid=x"):
        assert 400 <= (await nobody.get(path)).status_code < 500


async def test_nobody_signs_in_to_ask_whether_the_controller_is_well(
    nobody: httpx2.AsyncClient,
) -> None:
    health, ready = await nobody.get("/health"), await nobody.get("/ready")
    assert (health.status_code, health.json()) == (200, {"status": "healthy"})
    assert ready.status_code == 200
    shapes.check(ready.json(), {"status": str})


async def test_the_documentation_loads_nothing_from_elsewhere(nobody: httpx2.AsyncClient) -> None:
    page = await nobody.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text.replace("http-equiv", "")
    links = [part.split('"')[0] for part in page.text.replace("href=", "src=").split('src="')[1:]]
    assert len(links) == 2
    for link in links:
        asset = await nobody.get(f"/{link}")
        assert asset.status_code == 200
        assert asset.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")
        assert len(asset.content) > 10_000


async def test_openapi_3_1_has_an_example_for_every_request_body(
    nobody: httpx2.AsyncClient,
) -> None:
    described = (await nobody.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")
    bodies = [
        (f"{method} {path}", media)
        for path, methods in described["paths"].items()
        for method, route in methods.items()
        for media in route.get("requestBody", {}).get("content", {}).values()
    ]
    assert len(bodies) >= 6
    for where, media in bodies:
        assert (
            "examples" in media
            or "example" in media
            or _fields_have_examples(described, media["schema"]["$ref"])
        ), where


def _fields_have_examples(described: dict, reference: str) -> bool:
    schema = described["components"]["schemas"][reference.rsplit("/", 1)[1]]
    return all("examples" in field for field in schema["properties"].values())


async def test_the_examples_are_requests_that_the_controller_understands(
    nobody: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    described = (await nobody.get("/openapi.json")).json()
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                where = path.format(agent_id="nowhere", command_id="nowhere")
                answer = await admin.request(method, where, json=example["value"])
                assert answer.status_code != 422, (where, answer.text)
