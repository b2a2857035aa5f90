"""Named tokens: how they look, and what is stored of them."""

import hashlib
import secrets
from typing import Final

PREFIX: Final = "ogt_"


def new_named_token() -> str:
    """A fresh token with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def is_named_token(token: str) -> bool:
    """Whether it looks like one; a signed token never does."""
    return token.startswith(PREFIX)


def token_digest(token: str) -> str:
    """What is stored. A plain digest suffices: 256 random bits cannot be guessed."""
    return hashlib.sha256(token.encode()).hexdigest()
