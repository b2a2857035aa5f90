"""`ogent login`, `logout` and `whoami`."""

import getpass
import os
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from urllib.parse import urlsplit

from ogent.cli import exit_codes
from ogent.cli.render import as_json, escape
from ogent.cli.session import RETRY_FOR_S, open_client, say
from ogent.client.access_checks import usable_address
from ogent.client.client import Client
from ogent.client.errors import ApiError, NotSignedIn, OgentError, TokenNotFound, Unauthorized
from ogent.client.login import DEFAULT_URL, DamagedLogin, Login, LoginFile
from ogent.protocol.resources import CreatedToken

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def login(
    url: str | None, username: str | None, *, password_stdin: bool, machine: bool
) -> Coroutine[None, None, int]:
    """What exchanges a name and a password for a named token, and keeps that; both are known then.

    To be called outside an event loop: a loop would keep Ctrl-C from ending the questions.
    """
    file = LoginFile.of(os.environ)
    before = _stored(file)
    url = url or os.environ.get("OGENT_URL") or (before.url if before else DEFAULT_URL)
    url = usable_address(url).rstrip("/")
    _warn_of_clear_text(url)
    name = username or _ask_name()
    password = _ask_password(from_stdin=password_stdin)
    return _login(file, before, url, name, password, machine=machine)


async def _login(
    file: LoginFile, before: Login | None, url: str, name: str, password: str, *, machine: bool
) -> int:
    token = await _named_token(url, name, password)
    file.save(Login(url, name, token.token_id, token.token))
    await _end_former(before, url)
    if machine:
        print(as_json({"url": url, "username": name, "role": token.role, "file": str(file.path)}))
    else:
        print(f"signed in at {escape(url)} as {escape(name)} ({token.role.value})")
    if os.environ.get("OGENT_TOKEN"):
        say("OGENT_TOKEN is set and goes before what was stored now")
    return exit_codes.OK


async def logout(*, machine: bool) -> int:
    """End the stored token at its controller, then forget it."""
    file = LoginFile.of(os.environ)
    stored = file.load()
    if stored is None:
        raise NotSignedIn("there is no stored login")
    async with Client(stored.url, token=stored.token, retry_for=RETRY_FOR_S) as client:
        with suppress(TokenNotFound, Unauthorized):  # it has ended already
            await client.delete_token(stored.token_id)
    file.delete()
    print(as_json({"url": stored.url}) if machine else f"signed out at {escape(stored.url)}")
    return exit_codes.OK


async def whoami(*, machine: bool) -> int:
    """Say whose token is in use, and what it may do."""
    async with open_client() as client:
        me = await client.me()
        url = client.url
    if machine:
        print(as_json({**me.model_dump(mode="json"), "url": url}))
    else:
        limit = f", limited to {me.selector}" if me.selector else ""
        print(escape(f"{me.username} ({me.role.value}{limit}) at {url}"))
    return exit_codes.OK


async def _named_token(url: str, name: str, password: str) -> CreatedToken:
    async with Client(url, username=name, password=password, retry_for=RETRY_FOR_S) as client:
        return await client.create_token(f"ogent login on {socket.gethostname()}"[:64])


async def _end_former(former: Login | None, url: str) -> None:
    if former is None or former.url != url:
        return
    async with Client(url, token=former.token, retry_for=0) as client:
        with suppress(ApiError):
            await client.delete_token(former.token_id)


def _stored(file: LoginFile) -> Login | None:
    try:
        return file.load()
    except DamagedLogin:
        return None  # it is about to be replaced


def _warn_of_clear_text(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        say("this address is not https: the password and all output travel unencrypted")


def _ask_name() -> str:
    if not sys.stdin.isatty():
        raise OgentError("no terminal to ask on; give --username and --password-stdin")
    print("username: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _ask_password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise OgentError("no terminal to ask on; give --password-stdin")
    return getpass.getpass("password: ")
