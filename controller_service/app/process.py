"""The controller as a process: the listening socket, signals, exit codes."""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from app.application.use_cases.manage_users import ManageUsers
from app.bootstrap import INITIAL_PASSWORD_FILE, Controller, bootstrap, tell_password
from app.domain.errors import UserNotFound
from app.domain.ids import UserName
from app.infrastructure.data_dir import DataDirUnusable, open_data_dir
from app.infrastructure.database.migrate import MigrationFailed, migrate_sqlite
from app.infrastructure.database.sqlite_database import open_sqlite_database
from app.infrastructure.logging import configure_logging
from app.infrastructure.repositories.sql_user_repository import SqlUserRepository
from app.infrastructure.security.passlib_hasher import PasslibHasher
from app.infrastructure.socketio.servers import CLIENT_FRAME_MAX_BYTES
from app.infrastructure.socketio.websocket_protocol import DrainingWebSocket
from app.infrastructure.system_clock import SystemClock
from app.settings import BadSettings, Settings, load_settings
from ogent.protocol.version import VERSION

log = structlog.get_logger(__name__)

EXIT_USAGE: Final = 2
#: How long new work is still answered, with `draining`, before the doors are shut.
ANSWER_S: Final = 0.5
#: How long requests may take to end after SIGTERM.
GRACE_S: Final = 5
BACKLOG: Final = 2048


class CannotStart(Exception):
    """The controller cannot start; the message is the one line that says why."""


def run(env_file: Path, *, reset_password_of: str | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or make a new password; the process's exit status."""
    try:
        settings, unknown = load_settings(env_file)
        configure_logging(settings.log_level, settings.log_format)
        for name in unknown:
            log.warning("a name in the settings file means nothing", name=name, file=str(env_file))
        _unusable_yet(settings)
        with open_data_dir(settings.data_dir):
            if reset_password_of is not None:
                asyncio.run(_reset_password(settings, UserName(reset_password_of)))
            else:
                _serve(settings)
    except (BadSettings, CannotStart, DataDirUnusable, MigrationFailed) as exc:
        sys.stderr.write(f"ogent-controller: {exc}\n")
        return EXIT_USAGE
    return 0


def _unusable_yet(settings: Settings) -> None:
    """Say what is configured and not there yet, instead of passing over it."""
    if settings.openai_api_key is not None:
        log.warning("OPENAI_API_KEY has no effect yet: commands are not analysed")
    if settings.dispatch_key_file is not None:
        log.warning("DISPATCH_KEY_FILE has no effect yet: orders are not signed")


def _serve(settings: Settings) -> None:
    _check_tls(settings)
    with (
        _listening(settings) as listening,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_run(settings, listening))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """Uvloop where it is installed: the controller starts no processes."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket, opened before anything else so that a port in use is said at once."""
    try:
        info = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        # With its protocol given: event loops turn TCP_NODELAY on for what says that it is TCP.
        listening = socket.socket(info[0], info[1], info[2])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(info[4])
        listening.listen(BACKLOG)
    except OSError as exc:
        raise CannotStart(
            f"HOST {settings.host} PORT {settings.port} cannot be listened on: {exc.strerror}"
        ) from exc
    with listening:
        yield listening


async def _run(settings: Settings, listening: socket.socket) -> None:
    async with bootstrap(settings) as controller:
        server = _Server(_uvicorn_config(settings, controller))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop, controller)
        host, port = listening.getsockname()[:2]
        scheme = "https" if settings.tls_cert_file else "http"
        log.info("listening", url=f"{scheme}://{host}:{port}", version=VERSION)
        await server.serve(sockets=[listening])
        await server.drained()
    log.info("stopped")


def _check_tls(settings: Settings) -> None:
    """Raise CannotStart before anything is opened, rather than in the middle of the start."""
    certificate, key = settings.tls_cert_file, settings.tls_key_file
    if (certificate is None) is not (key is None):
        raise CannotStart("TLS_CERT_FILE and TLS_KEY_FILE belong together: one is missing")
    if certificate is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as exc:
        raise CannotStart(f"TLS_CERT_FILE or TLS_KEY_FILE cannot be used: {exc}") from exc


def _uvicorn_config(settings: Settings, controller: Controller) -> uvicorn.Config:
    return uvicorn.Config(
        controller.app,
        ws=DrainingWebSocket,
        ws_per_message_deflate=False,
        ws_max_size=CLIENT_FRAME_MAX_BYTES,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        timeout_graceful_shutdown=GRACE_S,
    )


class _Server(uvicorn.Server):
    """uvicorn, stopped by us: its own handling would end the process by the signal, not with 0."""

    _draining: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is left within GRACE_S, without a traceback for each request that is cut."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)

    def stop(self, controller: Controller) -> None:
        """Begin to stop; a second signal changes nothing."""
        if self._draining is None:
            log.info("stopping")
            self._draining = asyncio.get_running_loop().create_task(self._drain(controller))

    async def drained(self) -> None:
        """Return when the sockets were closed."""
        if self._draining is not None:
            await self._draining

    async def _drain(self, controller: Controller) -> None:
        try:
            controller.lifecycle.drain()
            await asyncio.sleep(ANSWER_S)
            await controller.drain()
        finally:
            self.should_exit = True


async def _reset_password(settings: Settings, name: UserName) -> None:
    await asyncio.to_thread(migrate_sqlite, settings.database_path)
    async with open_sqlite_database(settings.database_path) as database, PasslibHasher() as hasher:
        users = ManageUsers(users=SqlUserRepository(database), hasher=hasher, clock=SystemClock())
        password = secrets.token_urlsafe(18)
        try:
            await users.reset_password(name, password)
        except UserNotFound as exc:
            raise CannotStart(f"{exc.message}: nothing was changed") from exc
    tell_password(settings.data_dir / INITIAL_PASSWORD_FILE, name, password)
