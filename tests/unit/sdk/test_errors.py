import pytest

from ogent.cli.hints import error_json, error_text
from ogent.client.errors import ERRORS, ApiError, error_for
from ogent.protocol.problems import CODES, FieldError, Problem, problem


def test_every_code_has_a_class_of_its_own():
    assert set(ERRORS) == set(CODES)
    assert len(set(ERRORS.values())) == len(CODES)


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_problem_becomes_the_class_of_its_code(code):
    error = error_for(problem(code, "why"), retry_after_s=3.0)
    assert type(error) is ERRORS[code]
    assert (error.code, error.status, str(error)) == (code, CODES[code].status, "why")
    assert error.retry_after_s == 3.0


def test_a_code_of_a_newer_controller_is_still_an_api_error():
    error = error_for(Problem(type="t", title="New", status=418, detail="", code="teapot"))
    assert type(error) is ApiError
    assert (error.code, error.status, str(error)) == ("teapot", 418, "New")


def test_what_is_shown_names_the_field_and_drives_nothing():
    wrong = FieldError(loc=["body", "timeout"], msg="above\x1b[2J 0")
    text = error_text(error_for(problem("validation_error", "bad", [wrong])))
    assert text == "ogent: bad\n  body.timeout: above\\x1b[2J 0"
    assert '"code": "agent_offline"' in error_json(error_for(problem("agent_offline", "away")))
