"""The agent's settings: the environment, then `.env`, checked before anything begins."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ogent.protocol.limits import AGENT_ID_PATTERN, LABEL_MAX_CHARS, LABELS_MAX, MIB

#: Passwords that stand in examples and lists: an agent that is given one does not start.
KNOWN_PASSWORDS: Final = frozenset(
    {"admin", "agent", "agent123", "changeme", "change-me", "default", "password", "secret"}
)
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?")


class InvalidSettings(Exception):
    """A variable is missing or malformed; the message is one line that names it."""


class Settings(BaseSettings):
    """Everything that can be set. An empty value counts as not given."""

    model_config = SettingsConfigDict(
        env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    controller_url: str = "http://localhost:8001"
    agent_id: Annotated[str, Field(pattern=AGENT_ID_PATTERN)] | None = None
    agent_username: str | None = None
    agent_password: SecretStr | None = None
    agent_enrollment_token: SecretStr | None = None
    agent_labels: Annotated[dict[str, str], NoDecode] = {}
    data_dir: Path = Path("data")
    reconnect_delay: Annotated[float, Field(gt=0, le=30)] = 1.0
    max_reconnect_attempts: Annotated[int, Field(ge=0)] = 0
    max_concurrent_commands: Annotated[int, Field(ge=1, le=1024)] = 32
    command_user: str | None = None
    spool_max_bytes: Annotated[int, Field(ge=MIB)] = 256 * MIB
    ssh_enabled: bool = False
    ssh_host: str | None = None
    ssh_port: Annotated[int, Field(ge=1, le=65535)] = 22
    ssh_username: str | None = None
    ssh_password: SecretStr | None = None
    ssh_key_path: Path | None = None
    ssh_key_passphrase: SecretStr | None = None
    ssh_jump: str | None = None
    ssh_timeout: Annotated[float, Field(gt=0)] = 10.0
    ssh_known_hosts: Path = Path("~/.ssh/known_hosts")
    tls_ca_file: Path | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"

    @field_validator("controller_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must look like https://controller.example:8001")
        if parts.username or parts.query or parts.fragment:
            raise ValueError("must be an address without account, query or fragment")
        return value.rstrip("/")

    @field_validator("agent_labels", mode="before")
    @classmethod
    def _are_labels(cls, value: object) -> object:
        return labels_in(value) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.ssh_enabled:
            raise ValueError("SSH_ENABLED: running commands by SSH comes with a later release")
        if self.agent_enrollment_token:
            raise ValueError("AGENT_ENROLLMENT_TOKEN: enrolment comes with a later release")
        for name in ("agent_username", "agent_password"):
            if getattr(self, name) is None:
                raise ValueError(f"{name.upper()}: is missing; an account of role agent signs in")
        if self.agent_password and self.agent_password.get_secret_value() in KNOWN_PASSWORDS:
            raise ValueError("AGENT_PASSWORD: is a password that everybody knows")
        return self


def labels_in(text: str) -> dict[str, str]:
    """The labels in `role=web,env=prod`; raises ValueError."""
    labels: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = word.partition("=")
        if not equals or not _is_label(name) or not _is_value(value):
            raise ValueError("must be words like role=web,env=prod")
        labels[name] = value
    if len(labels) > LABELS_MAX:
        raise ValueError(f"must be at most {LABELS_MAX} labels")
    return labels


def _is_value(text: str) -> bool:
    return len(text) <= LABEL_MAX_CHARS and _LABEL_VALUE.fullmatch(text) is not None


def _is_label(text: str) -> bool:
    return len(text) <= LABEL_MAX_CHARS and _LABEL.fullmatch(text) is not None


def read_settings(env_file: Path) -> Settings:
    """The settings of this process; raises InvalidSettings."""
    try:
        return Settings(_env_file=env_file)  # type: ignore[call-arg]  # pydantic-settings' own
    except ValidationError as exc:
        raise InvalidSettings(_one_line(exc)) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidSettings(f"{env_file} cannot be read: {exc}") from exc


def unknown_names(env_file: Path) -> list[str]:
    """Names in `env_file` that mean nothing to the agent."""
    given: Mapping[str, str | None] = dotenv_values(env_file) if env_file.is_file() else {}
    return sorted(name for name in given if name.lower() not in Settings.model_fields)


def _one_line(exc: ValidationError) -> str:
    """The first complaint, without the value, which may be a secret."""
    first = exc.errors(include_input=False, include_url=False)[0]
    text = first["msg"].removeprefix("Value error, ")
    name = str(first["loc"][0]).upper() if first["loc"] else ""
    return " ".join((f"{name}: {text}" if name else text).split())
