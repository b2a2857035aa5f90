"""Pages of other origins: those that are named may call, others are not told that they may."""

from pathlib import Path

import httpx2
import pytest

from app.bootstrap import bootstrap
from app.infrastructure.data_dir import open_data_dir
from app.settings import Settings

FRIEND, STRANGER = "https://console.example", "https://evil.example"


@pytest.mark.parametrize(("origin", "allowed"), [(FRIEND, FRIEND), (STRANGER, None)])
async def test_a_preflight_says_whether_the_page_may_call(
    tmp_path: Path, origin: str, allowed: str | None
) -> None:
    settings = Settings(data_dir=tmp_path / "data", cors_allowed_origins=(FRIEND,))
    with open_data_dir(settings.data_dir):
        async with bootstrap(settings) as controller:
            transport = httpx2.ASGITransport(app=controller.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
                asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
                answer = await client.options("/agents", headers=asked)
    assert answer.headers.get("Access-Control-Allow-Origin") == allowed
