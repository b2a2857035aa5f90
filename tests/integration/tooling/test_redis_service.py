"""The Redis server with the configuration and the accounts that Ogent gives it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
import redis

FOLDER = Path(__file__).resolve().parents[3] / "redis_service"
PASSWORD = "0123456789abcdef-0123"
START_TIMEOUT_S = 20.0


@pytest.mark.parametrize(
    ("password", "word"), [("", "missing"), ("short", "16"), ("please-change-me-now", "example")]
)
def test_a_bad_password_ends_the_start_with_one_line(password: str, word: str) -> None:
    result = subprocess.run(
        [FOLDER / "entrypoint.sh"],
        env={"PATH": os.environ["PATH"], "REDIS_PASSWORD": password},
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
    )
    assert result.returncode == 2
    assert "REDIS_PASSWORD" in result.stderr and word in result.stderr
    assert result.stderr.count("\n") == 1


def test_nobody_gets_in_without_the_password(server: Path) -> None:
    for stranger in (
        redis.Redis(unix_socket_path=str(server)),
        redis.Redis(unix_socket_path=str(server), username="ogent", password="guess"),
    ):
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_a_controller_may_publish_and_subscribe_but_not_administer(server: Path) -> None:
    with redis.Redis(unix_socket_path=str(server), username="ogent", password=PASSWORD) as client:
        with client.pubsub(ignore_subscribe_messages=True) as listener:
            listener.subscribe("wake-up")
            listener.get_message(timeout=START_TIMEOUT_S)
            assert client.publish("wake-up", b"") == 1
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.config_get("dir")


def test_the_health_account_may_only_ping(server: Path) -> None:
    with redis.Redis(unix_socket_path=str(server), username="health", password="any") as client:
        assert client.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("key")


def test_its_memory_is_bounded_and_nothing_is_kept_on_disk(server: Path) -> None:
    with redis.Redis(unix_socket_path=str(server), username="ogent", password=PASSWORD) as client:
        assert client.info("memory")["maxmemory"] == 64 * 1024 * 1024
        assert client.info("memory")["maxmemory_policy"] == "allkeys-lru"
        assert client.info("persistence")["aof_enabled"] == 0


def test_the_accounts_file_holds_no_password(server: Path) -> None:
    accounts = server.parent / "ogent-users.acl"
    assert PASSWORD not in accounts.read_text()
    assert accounts.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """The Unix socket of a server that its own entrypoint started."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    unix_socket = tmp_path / "socket"
    process = subprocess.Popen(
        [FOLDER / "entrypoint.sh", "--port", "0", "--unixsocket", unix_socket],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "REDIS_PASSWORD": PASSWORD},
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = monotonic() + START_TIMEOUT_S
        while not unix_socket.exists():  # it appears when the server listens
            assert process.poll() is None and monotonic() < deadline, "the server did not start"
            sleep(0.02)
        yield unix_socket
    finally:
        process.terminate()
        process.wait(timeout=START_TIMEOUT_S)
