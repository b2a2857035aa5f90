import json

import pytest

from ogent.client.login import DEFAULT_URL, DamagedLogin, Login, LoginFile, find_access

LOGIN = Login("https://ogent.example", "ada", "tok-1", "secret")


@pytest.fixture
def file(tmp_path) -> LoginFile:
    return LoginFile.of({"XDG_CONFIG_HOME": str(tmp_path)})


def test_a_login_is_kept_for_its_owner_alone(file):
    assert file.load() is None
    file.path.parent.mkdir(parents=True)
    file.path.write_text("{}")
    file.path.chmod(0o644)
    file.save(LOGIN)
    assert file.load() == LOGIN
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in file.path.parent.iterdir()] == ["credentials.json"]


def test_deleting_twice_is_harmless(file):
    file.save(LOGIN)
    file.delete()
    file.delete()
    assert file.load() is None


@pytest.mark.parametrize("content", ["", "[]", '{"url": 1}', "null", json.dumps({"url": "x"})])
def test_a_damaged_file_is_told(file, content):
    file.path.parent.mkdir(parents=True)
    file.path.write_text(content)
    with pytest.raises(DamagedLogin, match="credentials"):
        file.load()


@pytest.mark.parametrize(
    ("environ", "url", "token"),
    [
        ({}, "https://ogent.example", "secret"),
        ({"OGENT_URL": "https://ogent.example/"}, "https://ogent.example", "secret"),
        ({"OGENT_URL": "https://other.example"}, "https://other.example", None),
        ({"OGENT_TOKEN": "mine"}, "https://ogent.example", "mine"),
        ({"OGENT_URL": "http://a", "OGENT_TOKEN": "mine"}, "http://a", "mine"),
    ],
)
def test_a_stored_token_goes_to_its_own_controller_only(file, environ, url, token):
    file.save(LOGIN)
    access = find_access(environ, file)
    assert (access.url, access.token) == (url, token)


def test_without_anything_this_machine_is_meant(file):
    access = find_access({}, file)
    assert (access.url, access.token) == (DEFAULT_URL, None)
