"""Exit status 0 while a process of this container holds a connection to the controller, else 1.

An agent has no port to ask. What it needs in order to work is its connection, and the kernel
lists that: an established one to the port, and one of the addresses, of CONTROLLER_URL.
"""

import ipaddress
import os
import socket
import sys
import urllib.parse
from pathlib import Path

ESTABLISHED = "01"
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def main() -> int:
    """Look once; print why where there is no connection."""
    url = urllib.parse.urlsplit(os.environ.get("CONTROLLER_URL") or "http://localhost:8001")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        print(f"{url.hostname}: {exc}")
        return 1
    wanted = {(ipaddress.ip_address(address[0]), port) for *_, address in found}
    if wanted & _connected():
        return 0
    print(f"no connection to {url.hostname}:{port}")
    return 1


def _connected() -> set[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    rows = (row.split() for table in TABLES if table.exists() for row in _rows(table))
    return {_peer(row[2]) for row in rows if row[3] == ESTABLISHED}


def _rows(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:]


def _peer(field: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """An entry such as `0100007F:1F41`: words of four bytes in the machine's own order."""
    address, _, port = field.partition(":")
    words = (bytes.fromhex(address[at : at + 8]) for at in range(0, len(address), 8))
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    ip = ipaddress.ip_address(packed)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip, int(port, 16)


if __name__ == "__main__":
    sys.exit(main())
