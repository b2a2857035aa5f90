"""`ogent doctor`: what is on, what is off, and the one line that turns it on."""

import os
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import urlsplit

from ogent.cli import exit_codes
from ogent.cli.hints import next_step
from ogent.cli.login import LOOPBACK
from ogent.cli.render import as_json, escape
from ogent.cli.session import RETRY_FOR_S
from ogent.client.client import Client
from ogent.client.errors import OgentError
from ogent.client.login import Access, LoginFile, find_access
from ogent.protocol.resources import Agent

_START_AGENT: Final = (
    "start one: CONTROLLER_URL={url} AGENT_USERNAME=… AGENT_PASSWORD=… ogent-agent"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `fix` turns it on. Without what is `needed` nothing works."""

    name: str
    on: bool
    needed: bool
    says: str
    fix: str | None = None


async def doctor(*, machine: bool) -> int:
    """Look at everything; exit code 1 where something needed is off."""
    file = LoginFile.of(os.environ)
    access = find_access(os.environ, file)
    client = Client(access.url, token=access.token, retry_for=RETRY_FOR_S)
    async with client:
        findings = [await _reach(client, access)]
        if findings[0].on:
            findings.append(await _ready(client))
            findings.append(await _signed_in(client, access))
            if findings[-1].on:
                findings.extend(await _agents(client))
    findings.extend((_tls(access.url), _private(file)))
    _print(findings, machine=machine)
    well = all(finding.on for finding in findings if finding.needed)
    return exit_codes.OK if well else exit_codes.FAILURE


def _print(findings: list[Finding], *, machine: bool) -> None:
    if machine:
        print(as_json([asdict(finding) for finding in findings]))
        return
    for finding in findings:
        mark = "on " if finding.on else "OFF" if finding.needed else "off"
        print(f"[{mark}] {finding.name}: {escape(finding.says)}")
        if finding.fix is not None and not finding.on:
            print(f"      {escape(finding.fix)}")


async def _reach(client: Client, access: Access) -> Finding:
    try:
        await client.health()
    except OgentError as exc:
        fix = f"start it with `ogent-controller`, or set OGENT_URL (now from {access.url_from})"
        return Finding("controller", False, True, str(exc), fix)
    return Finding("controller", True, True, f"{access.url} answers (from {access.url_from})")


async def _ready(client: Client) -> Finding:
    try:
        if await client.ready():
            return Finding("ready", True, True, "it takes work")
    except OgentError as exc:
        return Finding("ready", False, True, str(exc), next_step(exc))
    says = "it is starting, stopping, or without its database"
    return Finding("ready", False, True, says, "look at the controller's log")


async def _signed_in(client: Client, access: Access) -> Finding:
    fix = f"ogent login {access.url}"
    try:
        me = await client.me()
    except OgentError as exc:
        return Finding("signed in", False, True, str(exc), fix)
    says = f"{me.username}, {me.role.value} (from {access.token_from})"
    return Finding("signed in", True, True, says)


async def _agents(client: Client) -> list[Finding]:
    try:
        agents = await client.agents()
    except OgentError as exc:
        return [Finding("agents", False, True, str(exc), next_step(exc))]
    online = [agent for agent in agents if agent.status == "online"]
    says = f"{len(online)} of {len(agents)} online"
    start = _START_AGENT.format(url=client.url)
    return [Finding("agents", bool(online), True, says, start), _ssh(online)]


def _ssh(online: list[Agent]) -> Finding:
    reaching = [agent.agent_id for agent in online if agent.agent_info.ssh_enabled]
    if reaching:
        return Finding("ssh", True, False, f"through {', '.join(reaching)}")
    fix = "set SSH_ENABLED=true and SSH_HOST at an agent"
    return Finding("ssh", False, False, "no agent has an SSH target", fix)


def _tls(url: str) -> Finding:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return Finding("tls", True, False, "the connection is encrypted")
    local = parts.hostname in LOOPBACK
    says = "not needed on this machine" if local else "passwords and output travel unencrypted"
    fix = "set TLS_CERT_FILE and TLS_KEY_FILE at the controller, then use https://"
    return Finding("tls", False, not local, says, None if local else fix)


def _private(file: LoginFile) -> Finding:
    name = "stored login"
    try:
        mode = file.path.stat().st_mode & 0o777
    except OSError:
        return Finding(name, False, False, "there is none", "ogent login")
    if mode & 0o077:
        return Finding(
            name, False, True, f"{file.path} is open to others", f"chmod 600 {file.path}"
        )
    return Finding(name, True, False, f"{file.path}, readable by you alone")
