"""The few REST calls that the scripts make, with nothing but the standard library."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

ANSWER_TIMEOUT_S = 10.0


class RestError(Exception):
    """The controller did not do what it was asked; `status` is None where it did not answer."""

    def __init__(self, what: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(what)
        self.status = status
        self.code = code


@dataclass(slots=True)
class RestApi:
    """A controller's REST interface at `url`, for whoever signed in last."""

    url: str
    _token: str | None = field(default=None, repr=False)

    def is_ready(self) -> bool:
        """Whether `GET /ready` answers 200 now."""
        try:
            self._send("GET", "/ready")
        except RestError:
            return False
        return True

    def sign_in(self, username: str, password: str) -> None:
        """Get a token for the calls that follow; RestError with status 401 for a wrong password."""
        form = urllib.parse.urlencode({"username": username, "password": password}).encode()
        answer = self._send("POST", "/token", form, "application/x-www-form-urlencoded")
        self._token = str(answer["access_token"])

    def create_user(self, username: str, password: str, role: str) -> None:
        """Make an account; RestError with code `user_exists` where there is one of that name."""
        self._send_json("POST", "/users", username=username, password=password, role=role)

    def delete_user(self, username: str) -> None:
        """Remove an account and everything that it was signed in with."""
        self._send("DELETE", f"/users/{urllib.parse.quote(username, safe='')}")

    def agent_is_online(self, agent_id: str) -> bool:
        """Whether the controller lists the agent as online now."""
        try:
            agent = self._send("GET", f"/agents/{urllib.parse.quote(agent_id, safe='')}")
        except RestError as exc:
            if exc.status == 404:
                return False
            raise
        return agent.get("status") == "online"

    def _send_json(self, method: str, path: str, **body: str) -> None:
        self._send(method, path, json.dumps(body).encode(), "application/json")

    def _send(
        self, method: str, path: str, body: bytes | None = None, content_type: str | None = None
    ) -> Mapping[str, object]:
        request = urllib.request.Request(  # noqa: S310 - the opener below knows HTTP alone
            self.url + path, data=body, method=method
        )
        if content_type is not None:
            request.add_header("Content-Type", content_type)
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with _OPENER.open(request, timeout=ANSWER_TIMEOUT_S) as answer:
                return _object(answer.read())
        except urllib.error.HTTPError as exc:
            raise _refused(f"{method} {path}", exc) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise RestError(f"{method} {path}: no answer from {self.url} ({exc})") from exc


def _http_alone() -> urllib.request.OpenerDirector:
    # Neither files nor the user's proxy: the controller is on loopback or in the next container.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _http_alone()


def _object(data: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(data) if data else {}
    except ValueError as exc:
        raise RestError(f"not JSON: {data[:200]!r}") from exc
    return value if isinstance(value, dict) else {}


def _refused(what: str, answer: urllib.error.HTTPError) -> RestError:
    try:
        problem = _object(answer.read())
    except (RestError, OSError, http.client.HTTPException):
        problem = {}
    code = problem.get("code")
    detail = problem.get("detail", answer.reason)
    return RestError(f"{what}: {answer.code} {detail}", answer.code, str(code) if code else None)
