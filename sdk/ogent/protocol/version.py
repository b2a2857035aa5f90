"""Versions: of the distributions (one number for all of them) and of the agents' protocol."""

from typing import Final

#: Version of every Ogent distribution in this repository.
VERSION: Final = "0.1.0"

#: Version of the agents' door; sent in `auth` at connect, refused where it is unknown.
PROTOCOL_VERSION: Final = 1
