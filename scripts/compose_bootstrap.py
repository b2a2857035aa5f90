"""Make the agent's account, once; run by docker-compose.yml in the controller's image.

Repeating it is harmless: an account that already has the password that was given stays as it is,
one with another password is made anew. The agent itself never has an administrator's password.
"""

import os
import sys
from time import monotonic, sleep

from rest import RestApi, RestError

READY_TIMEOUT_S = 120.0
POLL_EVERY_S = 0.5


def main() -> int:
    """Exit status 0: the account is there. 1: it is not, and stderr says why."""
    try:
        api = RestApi(_variable("CONTROLLER_URL"))
        _wait_until_ready(api)
        api.sign_in(_variable("ADMIN_USERNAME"), _variable("ADMIN_PASSWORD"))
        print(_ensure_account(api, _variable("AGENT_USERNAME"), _variable("AGENT_PASSWORD")))
    except RestError as exc:
        print(f"the agent's account could not be made: {exc}", file=sys.stderr)
        return 1
    return 0


def _ensure_account(api: RestApi, username: str, password: str) -> str:
    try:
        api.create_user(username, password, "agent")
    except RestError as exc:
        if exc.code != "user_exists":
            raise
        if _may_sign_in(api.url, username, password):
            return f"the account {username} is there"
        api.delete_user(username)
        api.create_user(username, password, "agent")
        return f"the account {username} was made anew, with the new password"
    return f"the account {username} was made"


def _may_sign_in(url: str, username: str, password: str) -> bool:
    try:
        RestApi(url).sign_in(username, password)
    except RestError as exc:
        if exc.status != 401:
            raise
        return False
    return True


def _wait_until_ready(api: RestApi) -> None:
    deadline = monotonic() + READY_TIMEOUT_S
    while not api.is_ready():
        if monotonic() > deadline:
            raise RestError(f"{api.url} is not ready after {READY_TIMEOUT_S:.0f} s")
        sleep(POLL_EVERY_S)  # nothing tells from outside that a server has become ready


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise RestError(f"{name} is missing")
    return value


if __name__ == "__main__":
    sys.exit(main())
