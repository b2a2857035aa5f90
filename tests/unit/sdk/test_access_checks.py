import pytest

from ogent.client.access_checks import usable_address, usable_token
from ogent.client.errors import UnusableAddress, UnusableToken


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:-1",
        "http://127.0.0.1:x",
        "http://[::1",
        "ftp://host",
        "host:8001",
        "http://",
        "http://host\n",
        "http://ho st",
        "http://host?query",
        "",
    ],
)
def test_an_address_that_cannot_be_asked_is_told_with_where_it_was_found(address):
    with pytest.raises(UnusableAddress, match=r"^OGENT_URL .*cannot be used: "):
        usable_address(address, "OGENT_URL")


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8001", "https://ogent.example/under/", "http://[::1]:65535"]
)
def test_other_addresses_are_left_as_they_are(address):
    assert usable_address(address) == address


@pytest.mark.parametrize("token", ["sécret", "secret\n", "sec ret", "\x7fsecret", "secret\udcff"])
def test_a_token_that_cannot_be_sent_is_told_and_not_shown(token):
    with pytest.raises(
        UnusableToken, match=r"^OGENT_TOKEN cannot be sent: its character"
    ) as caught:
        usable_token(token, "OGENT_TOKEN")
    assert "cret" not in str(caught.value)


def test_an_empty_token_is_none_and_visible_ascii_is_one():
    with pytest.raises(UnusableToken, match="empty"):
        usable_token("")
    assert usable_token("abc.DEF-_~!") == "abc.DEF-_~!"
