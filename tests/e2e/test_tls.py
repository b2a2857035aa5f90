"""HTTPS and WSS from end to end, with a certificate that is trusted where it was given."""

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.services import (
    ADMIN_PASSWORD,
    AGENT_ACCOUNT,
    AGENT_PASSWORD,
    Controller,
    agent_in,
    controller_in,
)
from tests.integration.sdk.ogent_process import Ogent

LOOPBACK = ipaddress.ip_address("127.0.0.1")


@dataclass(frozen=True)
class Secured:
    controller: Controller
    certificate: Path
    token: str


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for loopback that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ogent test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    certificate, key = make_certificate(folder)
    files = {"TLS_CERT_FILE": str(certificate), "TLS_KEY_FILE": str(key)}
    trusts = ssl.create_default_context(cafile=certificate)
    with controller_in(folder / "controller", verify=trusts, **files) as made:
        made.start()
        made.make_account(AGENT_ACCOUNT, AGENT_PASSWORD)
        yield Secured(made, certificate, made.token)


async def test_a_command_goes_over_tls_all_the_way(secured: Secured, tmp_path: Path) -> None:
    url, certificate = secured.controller.url, str(secured.certificate)
    with agent_in(tmp_path / "agent", "safe", url, TLS_CA_FILE=certificate) as agent:
        agent.service.start()
        await agent.service.logs("registered with the controller")
        async with Ogent(tmp_path, {"SSL_CERT_FILE": certificate}).open() as cli:
            words = ("login", url, "--username", "admin", "--password-stdin")
            assert (await cli.run(*words, stdin=f"{ADMIN_PASSWORD}\n".encode())).code == 0
            ended = await cli.run("exec", agent.id, "--", "echo hi; exit 3")
    assert (ended.code, ended.out) == (3, b"hi\n")


async def test_an_unknown_certificate_is_said_and_nothing_is_sent(
    secured: Secured, tmp_path: Path
) -> None:
    url = secured.controller.url
    environ = {"OGENT_URL": url, "OGENT_TOKEN": secured.token}
    async with Ogent(tmp_path, environ).open() as cli:
        refused = await cli.run("agents")
    assert refused.code == 1
    assert "certificate is not trusted here: self-signed certificate" in refused.err
    with agent_in(tmp_path / "agent", "wary", url) as agent:
        agent.service.start()
        await agent.service.logs("certificate verify failed: self-signed certificate")


async def test_clear_text_gets_no_answer_from_a_controller_with_tls(secured: Secured) -> None:
    with pytest.raises(httpx2.TransportError):
        httpx2.get(secured.controller.url.replace("https", "http") + "/health")
