"""The controller as a process that starts, or says in one line why it does not."""

import asyncio
import socket
from pathlib import Path

import pytest

from app.settings import BadSettings, load_settings
from tests.integration.controller.controller_process import Ended, run, service_folder, started
from tests.integration.controller.installation import client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return service_folder(tmp_path / "controller_service")


def check_refusal(ended: Ended, *words: str) -> None:
    """One line on stderr that names what is wrong, exit code 2, nothing else."""
    assert ended.code == 2, ended.err
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("ogent-controller: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in ended.err


SHORT_KEY = "0123456789abcdef"
#: Tried as processes.
BAD = (
    ({"SECRET_KEY": SHORT_KEY}, "SECRET_KEY"),
    ({"ADMIN_PASSWORD": "change-me"}, "ADMIN_PASSWORD"),
    ({"PORT": "eighty"}, "PORT"),
    ({"HOST": "no.such.host.invalid"}, "HOST"),
    ({"CORS_ALLOWED_ORIGINS": "https://a.example,*"}, "CORS_ALLOWED_ORIGINS"),
    ({"REDIS_URL": "redis://localhost"}, "REDIS_URL"),
    ({"TLS_CERT_FILE": "/no/such/file"}, "TLS_"),
    ({"TLS_CERT_FILE": "/dev/null", "TLS_KEY_FILE": "/dev/null"}, "TLS_"),
    ({"DATABASE_URL": "sqlite:////no/such/folder/file"}, "/no/such/folder/file"),
)
#: Refused at the same place as those; read in this process, for Python's start takes longest.
ALSO_BAD = (
    ("SECRET_KEY", "changeme"),
    ("SECRET_KEY", "change-me-" * 4),
    ("SECRET_KEY", "a" * 40),
    ("TRUSTED_PROXIES", "*"),
    ("TRUSTED_PROXIES", "10.0.0.1,proxy.example"),
    ("ADMIN_PASSWORD", "password1234"),
    ("ADMIN_PASSWORD", "short"),
    ("ADMIN_USERNAME", "a b"),
    ("PORT", "70000"),
    ("ACCESS_TOKEN_EXPIRE_MINUTES", "soon"),
    ("ACCESS_TOKEN_EXPIRE_MINUTES", "0"),
    ("MAX_OUTPUT_BYTES", "-1"),
    ("DATABASE_URL", "postgresql+asyncpg://localhost/ogent"),
    ("LOG_LEVEL", "loud"),
)


async def test_a_bad_variable_is_named_in_one_line(folder: Path) -> None:
    for start in range(0, len(BAD), 3):
        some = BAD[start : start + 3]
        data_dirs = [{"DATA_DIR": folder / f"data{start + i}"} for i in range(len(some))]
        starts = [run(folder, **d, **bad) for d, (bad, _) in zip(data_dirs, some, strict=True)]
        ends = await asyncio.gather(*starts)
        for (variables, name), ended in zip(some, ends, strict=True):
            check_refusal(ended, name)
            for secret in variables.keys() & {"SECRET_KEY", "ADMIN_PASSWORD"}:
                assert variables[secret] not in ended.err


@pytest.mark.parametrize(("name", "value"), ALSO_BAD)
def test_a_bad_value_is_refused_without_being_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings) as refusal:
        load_settings(tmp_path / ".env")
    assert str(refusal.value).startswith(f"{name} ")
    assert len(str(refusal.value).splitlines()) == 1
    assert f"{name} {value}" not in str(refusal.value)


async def test_a_folder_that_cannot_be_made_is_said(folder: Path) -> None:
    file = folder / "file"
    file.write_text("in the way")
    for path in (file, file / "data"):
        check_refusal(await run(folder, DATA_DIR=path), "DATA_DIR", str(path))


async def test_a_port_in_use_is_said(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        check_refusal(await run(folder, PORT=port), "PORT", str(port))


async def test_a_damaged_secret_key_file_is_said(folder: Path) -> None:
    (folder / "data").mkdir()
    for content in (b"", b"short\n", b"\xff\xfe\x00"):
        (folder / "data" / "secret-key").write_bytes(content)
        check_refusal(await run(folder), "secret-key")


async def test_a_file_that_is_no_database_is_said(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "ogent.sqlite3").write_bytes(b"this is no database" * 500)
    check_refusal(await run(folder), "ogent.sqlite3")


async def test_a_second_start_on_the_same_folder_is_refused(folder: Path) -> None:
    async with started(folder) as first:
        await first.url()
        check_refusal(await run(folder), "DATA_DIR", "another controller")
        check_refusal(await run(folder, "reset-password", "admin"), "DATA_DIR")
        assert await first.stop() == 0


async def test_an_empty_value_means_unset_and_an_unknown_name_is_a_warning(tmp_path: Path) -> None:
    text = "SECRET_KEY=\nADMIN_PASSWORD=\nHOST=\nREDIS_URL=\nSECRETKEY=oops\n"
    folder = service_folder(tmp_path / "controller_service", text)
    async with started(folder) as controller:
        await controller.url()
        assert await controller.stop() == 0
        warnings = [line for line in controller.log.splitlines() if "warning" in line]
        assert len(warnings) == 1 and "SECRETKEY" in warnings[0]
        assert "oops" not in controller.log


async def test_generated_secrets_are_private_and_not_in_the_log(folder: Path) -> None:
    async with started(folder, LOG_LEVEL="DEBUG") as controller:
        url = await controller.url()
        data = folder / "data"
        assert data.stat().st_mode & 0o777 == 0o700
        for file in data.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file.name
        password = (data / "initial-admin-password").read_text().strip()
        key = (data / "secret-key").read_text().strip()
        async with client(url, None) as http:
            form = {"username": "admin", "password": password}
            token = (await http.post("/token", data=form)).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            assert (await http.get("/me", headers=headers)).json()["role"] == "admin"
        assert await controller.stop() == 0
        for secret in (password, key, token):
            assert secret not in controller.log


async def test_reset_password_makes_a_new_one_for_a_user_that_exists(folder: Path) -> None:
    given = "first administrator 7"
    async with started(folder, ADMIN_PASSWORD=given) as controller:
        await controller.url()
        await controller.stop()
    refused = await run(folder, "reset-password", "nobody")
    check_refusal(refused, "nobody")
    ended = await run(folder, "reset-password", "admin")
    assert (ended.code, ended.out) == (0, "")
    new = (folder / "data" / "initial-admin-password").read_text().strip()
    assert new not in ended.err
    async with (
        started(folder, ADMIN_PASSWORD=given) as controller,
        client(await controller.url(), None) as http,
    ):
        for password, status in ((given, 401), (new, 200)):
            form = {"username": "admin", "password": password}
            assert (await http.post("/token", data=form)).status_code == status
