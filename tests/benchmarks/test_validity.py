import json
from typing import Any

import pytest

from footplate_daemon.benchmarks.validity import why_invalid
from footplate_daemon.benchmarks.workloads import ROUTER_FORMAT

ROUTER = ROUTER_FORMAT["json_schema"]["schema"]
GOOD = {"category": "billing", "urgency": 3, "needs_human": True}


def test_an_object_of_the_schema_is_valid() -> None:
    assert why_invalid(json.dumps(GOOD), ROUTER) is None


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("", "not JSON"),
        ('{"category": "billing"', "not JSON"),
        ("Sure! {}", "not JSON"),
        ("NaN", "not JSON"),
        ("[" * 5000, "not JSON"),
        ("[]", "type object"),
        (json.dumps({**GOOD, "category": "war"}), "$.category is none of"),
        (json.dumps({**GOOD, "urgency": 9}), "maximum 5"),
        (json.dumps({**GOOD, "urgency": 2.5}), "type integer"),
        (json.dumps({**GOOD, "needs_human": 1}), "type boolean"),
        (json.dumps({**GOOD, "more": 1}), "$.more may not be there"),
        (json.dumps({"urgency": 1}), "lacks category, needs_human"),
    ],
)
def test_what_is_wrong_is_said(answer: str, word: str) -> None:
    assert word in (why_invalid(answer, ROUTER) or "")


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (True, {"anything": 1}, None),
        ({"type": ["string", "null"]}, None, 1),
        ({"const": 1}, 1, True),
        ({"enum": [1, "a"]}, "a", 2),
        ({"items": {"type": "integer"}}, [1, 2], [1, "2"]),
        ({"minItems": 2}, [1, 2], [1]),
        ({"type": "string", "pattern": "^[a-z]+$"}, "abc", "ABC"),
        ({"pattern": "("}, "a pattern of another dialect says nothing", None),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, 7, 3),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 1.5, 1),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, 2, 4),
        (
            {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "null"}}},
            {"a": None},
            {"a": 1},
        ),
        ({"additionalProperties": {"type": "integer"}}, {"x": 1}, {"x": "1"}),
        ({"exclusiveMinimum": 0}, 1, 0),
        ({"unheard-of": 1}, 1, None),
    ],
)
def test_the_usual_words_of_schemas_are_understood(schema: Any, good: Any, bad: Any) -> None:
    assert why_invalid(json.dumps(good), schema) is None
    if bad is not None:
        assert why_invalid(json.dumps(bad), schema)


def test_a_schema_that_refers_to_itself_ends() -> None:
    assert why_invalid("{}", {"$ref": "#"}) is None
