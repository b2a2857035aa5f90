"""The login that `ogent login` keeps on this machine, and where it is kept."""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ogent.client.access_checks import usable_address, usable_token
from ogent.client.errors import OgentError

STORED: Final = "the stored login"
DEFAULT_URL: Final = "http://127.0.0.1:8001"


class DamagedLogin(OgentError):
    """The stored login cannot be read."""


@dataclass(frozen=True, slots=True)
class Login:
    """A controller, and a named token there; `token_id` is what ends it."""

    url: str
    username: str
    token_id: str
    token: str


class LoginFile:
    """One Login in a file that only its owner may read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "LoginFile":
        """`ogent/credentials.json` in XDG_CONFIG_HOME, by default in `~/.config`."""
        home = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        return cls(Path(home) / "ogent" / "credentials.json")

    def load(self) -> Login | None:
        """The stored login, None where there is none; raises DamagedLogin."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return Login(*(str(stored[name]) for name in Login.__dataclass_fields__))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise DamagedLogin(f"cannot read the stored login {self.path}: {exc}") from exc

    def save(self, login: Login) -> None:
        """Replace the stored login; a crash leaves the old one or the new one, mode 0600."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # mkstemp makes the file 0600 from the start: the token is never readable by others.
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".credentials-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(login), file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise

    def delete(self) -> None:
        """Forget the login; nothing happens where there is none."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Access:
    """Which controller to speak to, with which token, and where both were found."""

    url: str
    token: str | None
    url_from: str
    token_from: str | None


def find_access(environ: Mapping[str, str], file: LoginFile) -> Access:
    """OGENT_URL and OGENT_TOKEN where they are set, else the stored login, else this machine.

    A stored token is given only for the controller that it was made at. Raises DamagedLogin, and
    UnusableAddress or UnusableToken where no request could be made with what was found.
    """
    found = _find_access(environ, file)
    usable_address(found.url, found.url_from)
    if found.token is not None:
        usable_token(found.token, found.token_from or "the token")
    return found


def _find_access(environ: Mapping[str, str], file: LoginFile) -> Access:
    url, token = environ.get("OGENT_URL", ""), environ.get("OGENT_TOKEN", "")
    login = None if url and token else file.load()
    if login is None or (url and url.rstrip("/") != login.url):
        source = "OGENT_URL" if url else "the default"
        return Access(url or DEFAULT_URL, token or None, source, "OGENT_TOKEN" if token else None)
    return Access(
        login.url,
        token or login.token,
        "OGENT_URL" if url else STORED,
        "OGENT_TOKEN" if token else STORED,
    )
