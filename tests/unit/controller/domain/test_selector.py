"""Label selectors in the grammar of Kubernetes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidSelector
from app.domain.models.selector import SELECTOR_MAX_CHARS, Requirement, Selector

LABELS = {"env": "prod", "zone": "a", "gpu": "", "example.org/role": "web"}

NAMES = st.sampled_from(["a", "env", "in", "notin", "x.y/z-1", "A9"])
VALUES = st.sampled_from(["", "b", "prod", "1.2-3_4"])
SPACE = st.sampled_from(["", " ", "  "])


@st.composite
def requirements(draw: st.DrawFn) -> tuple[str, Requirement]:
    """A requirement as text, and what it means."""
    name, negated = draw(NAMES), draw(st.booleans())
    before, after = draw(SPACE), draw(SPACE)
    match draw(st.sampled_from(["exists", "equal", "set"])):
        case "exists":
            text, values = f"{'!' if negated else ''}{before}{name}", None
        case "equal":
            values = frozenset({draw(VALUES)})
            operator = "!=" if negated else draw(st.sampled_from(["=", "=="]))
            text = f"{name}{before}{operator}{after}{next(iter(values))}"
        case _:
            listed = draw(st.lists(VALUES, min_size=1, max_size=3))
            values = frozenset(listed)
            inner = f"{before},{after}".join(listed)
            text = f"{name} {'notin' if negated else 'in'}{after}({inner})"
    return f"{before}{text}{after}", Requirement(name, values, negated)


@given(st.lists(requirements(), min_size=1, max_size=5))
def test_what_is_written_is_what_is_read(wanted: list[tuple[str, Requirement]]) -> None:
    selector = Selector.parse(",".join(text for text, _ in wanted))
    assert selector.requirements == tuple(requirement for _, requirement in wanted)


@given(st.text(max_size=60) | st.text(alphabet="ab=!(), in", max_size=30))
def test_any_text_is_a_selector_or_is_refused(text: str) -> None:
    try:
        selector = Selector.parse(text)
    except InvalidSelector as exc:
        assert len(exc.message) < 250
    else:
        assert selector.matches(LABELS) in (True, False)


@given(st.lists(requirements(), max_size=4), st.dictionaries(NAMES, VALUES))
def test_a_selector_matches_when_all_of_its_requirements_do(wanted, labels) -> None:
    selector = Selector(tuple(requirement for _, requirement in wanted))
    assert selector.matches(labels) is all(r.matches(labels) for r in selector.requirements)


@pytest.mark.parametrize(
    ("text", "does_match"),
    [
        ("", True),
        ("  ", True),
        ("env=prod", True),
        ("env==prod", True),
        ("env=test", False),
        ("env!=test", True),
        ("env!=prod", False),
        ("absent!=x", True),
        ("absent=x", False),
        ("absent=", False),
        ("gpu=", True),
        ("gpu", True),
        ("!gpu", False),
        ("!absent", True),
        ("zone in (a,b)", True),
        ("zone in (b)", False),
        ("zone notin (b)", True),
        ("zone notin (a, b)", False),
        ("absent notin (a)", True),
        ("absent in ()", False),
        ("example.org/role = web", True),
        ("env=prod,role!=db,zone in (a,b),gpu,!old", True),
        ("env=prod,zone=b", False),
    ],
)
def test_absent_labels_are_unequal_to_everything(text: str, does_match: bool) -> None:
    assert Selector.parse(text).matches(LABELS) is does_match


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "env=prod,",
        ",env=prod",
        "env prod",
        "env=prod role=db",
        "zone in a",
        "zone in (a",
        "zone in (a;b)",
        "zone in (-a)",
        "!env=prod",
        "-env",
        "env=prod-",
        "env>1",
        "a" * (SELECTOR_MAX_CHARS + 1),
    ],
)
def test_what_is_no_selector_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(InvalidSelector) as caught:
        Selector.parse(text)
    assert len(caught.value.message) < 250
