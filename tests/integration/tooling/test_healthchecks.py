"""The health checks of the images, against real sockets and a real HTTP server."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net")


@linux
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_agent_with_a_connection_to_its_controller_is_healthy(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as controller:
        url = f"http://{host}:{controller.getsockname()[1]}"
        with socket.create_connection(controller.getsockname()):
            assert _check("agent_service", CONTROLLER_URL=url) == 0


@linux
def test_an_agent_without_its_connection_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as controller:
        url = f"http://127.0.0.1:{controller.getsockname()[1]}"
        assert _check("agent_service", CONTROLLER_URL=url) == 1


@linux
def test_an_agent_connected_to_another_address_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        with socket.create_connection(other.getsockname()):
            assert _check("agent_service", CONTROLLER_URL=url) == 1


def test_a_ready_controller_is_healthy() -> None:
    with _answering(200) as port:
        assert _check("controller_service", PORT=port) == 0


def test_a_controller_that_is_not_ready_is_not_healthy() -> None:
    with _answering(503) as port:
        assert _check("controller_service", PORT=port) == 1


def test_a_controller_that_is_not_there_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    assert _check("controller_service", PORT=port) == 1


def _check(service: str, **environment: str) -> int:
    argv = [sys.executable, ROOT / service / "healthcheck.py"]
    env = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(argv, env=env, capture_output=True, timeout=20).returncode


@contextmanager
def _answering(status: int) -> Iterator[str]:
    """The port of a server whose `/ready` answers `status`, and everything else 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()
