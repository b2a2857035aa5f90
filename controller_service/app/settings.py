"""The environment as one frozen Settings, or one clear line."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

#: Values that guides and examples use; whoever keeps one of them has no secret.
KNOWN_DEFAULTS: Final = frozenset(
    {
        "admin",
        "administrator",
        "change-me",
        "change_me",
        "changeme",
        "default",
        "example",
        "letmein",
        "ogent",
        "password",
        "secret",
        "secret-key",
        "secretkey",
        "test",
        "your-secret-key",
    }
)
#: Text that repeats one part, as placeholders do.
_PERIODIC: Final = re.compile(r"(.{1,16}?)\1{2,}.{0,15}", re.DOTALL)
SQLITE_PREFIX: Final = "sqlite:///"


class BadSettings(Exception):
    """A variable is missing or malformed; the message is the one line that says so."""


def _commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_commas)]


class Settings(BaseSettings):
    """What the controller is told by its environment and by `.env`. An empty value means unset."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8001
    data_dir: Path = Path("data")
    secret_key: SecretStr | None = None
    access_token_expire_minutes: Annotated[float, Field(gt=0, le=60 * 24 * 366)] = 30
    admin_username: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")] = "admin"
    admin_password: SecretStr | None = None
    database_url: str | None = None
    redis_url: str | None = None
    cors_allowed_origins: Words = ()
    trusted_proxies: Words = ()
    max_output_bytes: Annotated[int, Field(gt=0)] = 1024**3
    retention_days: Annotated[float, Field(gt=0, le=36500)] = 30
    min_free_bytes: Annotated[int, Field(ge=0)] = 1024**3
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    openai_model: str | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    dispatch_key_file: Path | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("secret_key")
    @classmethod
    def _strong_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _refuse_known(value)
            if _PERIODIC.fullmatch(value.get_secret_value()):
                raise ValueError("repeats itself: choose a random one, or leave it empty")
            if len(value.get_secret_value()) < 32:
                raise ValueError("has to have at least 32 characters")
        return value

    @field_validator("admin_password")
    @classmethod
    def _strong_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _refuse_known(value)
            if len(value.get_secret_value()) < 12:
                raise ValueError("has to have at least 12 characters")
        return value

    @field_validator("cors_allowed_origins")
    @classmethod
    def _no_wildcard(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in value:
            raise ValueError("* would let every web page act for whoever is signed in: name them")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _only_named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            try:
                ip_network(word, strict=False)
            except ValueError as exc:
                raise ValueError(f"takes addresses and networks, not {word[:64]!r}") from exc
        return value

    @field_validator("database_url")
    @classmethod
    def _sqlite_only(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(SQLITE_PREFIX):
            raise ValueError(f"has to begin with {SQLITE_PREFIX}: other databases come later")
        return value

    @field_validator("redis_url")
    @classmethod
    def _alone(cls, value: str | None) -> str | None:
        if value is not None:
            raise ValueError("is for several controllers, which come later: leave it empty")
        return value

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        if self.database_url is None:
            return self.data_dir / "ogent.sqlite3"
        return Path(self.database_url.removeprefix(SQLITE_PREFIX))


def _refuse_known(value: SecretStr) -> None:
    if value.get_secret_value().strip().lower().rstrip("!1234567890") in KNOWN_DEFAULTS:
        raise ValueError("is a well-known value: choose another, or leave it empty for a new one")


def load_settings(env_file: Path) -> tuple[Settings, list[str]]:
    """The settings, and the names in `env_file` that mean nothing; raises BadSettings."""
    try:
        settings = Settings(_env_file=env_file)  # type: ignore[call-arg]  # pydantic-settings' own
    except ValidationError as exc:
        raise BadSettings(_line(exc)) from exc
    known = set(Settings.model_fields)
    unknown = [name for name in dotenv_values(env_file) if name.lower() not in known]
    return settings, unknown


def _line(exc: ValidationError) -> str:
    first: Any = exc.errors(include_input=False, include_url=False)[0]
    name = str(first["loc"][0]).upper() if first["loc"] else "settings"
    return f"{name} {first['msg'].removeprefix('Value error, ')}"
