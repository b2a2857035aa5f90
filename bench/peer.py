"""The peer: an SSH server on loopback, driven by asyncssh over one warm connection."""

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh


@asynccontextmanager
async def warm_connection() -> AsyncIterator[tuple[asyncssh.SSHClientConnection, str]]:
    """A connection that is up, and what serves it: OpenSSH, or asyncssh where there is none."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    with tempfile.TemporaryDirectory(prefix="ogent-peer-") as folder:
        serve = _openssh(sshd, Path(folder)) if sshd else _asyncssh_server(Path(folder))
        async with (
            serve as (port, key, name),
            asyncssh.connect(
                "127.0.0.1", port, client_keys=[key], known_hosts=None, config=None
            ) as connection,
        ):
            yield connection, name


@asynccontextmanager
async def _openssh(sshd: str, folder: Path) -> AsyncIterator[tuple[int, asyncssh.SSHKey, str]]:
    """A real sshd with its own key and an empty home, so that no login profile slows it."""
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    host_key.write_private_key(folder / "host_key")
    (folder / "host_key").chmod(0o600)
    (folder / "authorized_keys").write_bytes(user_key.export_public_key())
    (folder / "home").mkdir()
    port = _free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nUsePAM no\nStrictModes no\n"
        f"PermitRootLogin yes\nMaxSessions 64\nSetEnv HOME={folder}/home\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd refuses to start as root without it
    process = await asyncio.create_subprocess_exec(
        sshd, "-D", "-e", "-f", str(folder / "sshd_config"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await _until_listening(port)
        yield port, user_key, "OpenSSH"
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def _asyncssh_server(folder: Path) -> AsyncIterator[tuple[int, asyncssh.SSHKey, str]]:
    """Asyncssh's own server in a process of its own, so that it has the other core."""
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    host_key.write_private_key(folder / "host_key")
    (folder / "authorized_keys").write_bytes(user_key.export_public_key())
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("ssh_server.py")), str(port), str(folder)
    )
    try:
        await _until_listening(port)
        yield port, user_key, "asyncssh"
    finally:
        process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
