"""Whether an address and a token can be used at all, told before anything is sent."""

from urllib.parse import urlsplit

from ogent.client.errors import UnusableAddress, UnusableToken


def usable_address(url: str, source: str = "the address") -> str:
    """`url`; raises UnusableAddress unless it is http or https, with a host and a real port."""
    try:
        parts = urlsplit(url)
        wrong = _wrong_in_port(parts.port)
    except ValueError as exc:
        raise UnusableAddress(f"{source} {url!r} cannot be used: {exc}") from exc
    if not url.isprintable() or " " in url:
        wrong = "it has spaces or control characters"
    elif parts.scheme not in {"http", "https"}:
        wrong = "it has to start with http:// or https://"
    elif not parts.hostname:
        wrong = "it names no host"
    elif parts.query or parts.fragment:
        wrong = "it has to end before any ? or #"
    if wrong is not None:
        raise UnusableAddress(f"{source} {url!r} cannot be used: {wrong}")
    return url


def _wrong_in_port(port: int | None) -> str | None:
    return "port 0 is no port" if port == 0 else None


def usable_token(token: str, source: str = "the token") -> str:
    """`token`; raises UnusableToken unless it is visible ASCII without spaces."""
    if not token:
        raise UnusableToken(f"{source} is empty")
    for place, character in enumerate(token, 1):
        if not "!" <= character <= "~":
            what = "a line break" if character in "\r\n" else "no visible ASCII"
            raise UnusableToken(f"{source} cannot be sent: its character {place} is {what}")
    return token
