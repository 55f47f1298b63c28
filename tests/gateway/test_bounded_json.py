"""Small bodies that are huge in memory are refused before they are parsed."""

import json
import random

import pytest

from swarm.gateway import bounded_json
from swarm.gateway.bounded_json import MAX_CONTAINERS, MAX_STRINGS, MAX_VALUES, read_object
from swarm.gateway.errors import BadRequest

FILLERS = ["", "x", '"', "\\", '\\"', "[{,}]", "好\n", '\\\\"[', "\u2028"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": [%s]}' % b",".join([b"[]"] * MAX_CONTAINERS), "arrays and objects"),
        (b'{"a": [%s]}' % b",".join([b"0"] * (MAX_VALUES + 2)), "values"),
        (b'{"a": [%s]}' % b",".join([b'""'] * MAX_STRINGS), "strings"),
    ],
    ids=["containers", "values", "strings"],
)
def test_too_many_parts_are_refused_unread(body, words, monkeypatch):
    monkeypatch.setattr(bounded_json, "from_json", None)
    with pytest.raises(BadRequest, match=words) as told:
        read_object(body)
    assert told.value.status == 413


def test_a_text_may_hold_any_number_of_them():
    text = '{"a": [1, 2, "b"]},' * 100_000
    assert read_object(json.dumps({"prompt": text}).encode()) == {"prompt": text}


def _any(rng, depth=0):
    kind = rng.randrange(6 if depth < 4 else 4)
    if kind == 4:
        return [_any(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        return {rng.choice(FILLERS) + str(n): _any(rng, depth + 1) for n in range(rng.randrange(4))}
    return rng.choice([rng.choice(FILLERS) * rng.randrange(3), rng.random(), None, True])


def _parts(value):
    """Count the strings, containers and commas of a value."""
    if isinstance(value, str):
        return 1, 0, 0
    if not isinstance(value, (list, dict)):
        return 0, 0, 0
    inner = [_parts(each) for each in (value.values() if isinstance(value, dict) else value)]
    strings, containers, commas = (
        (sum(each) for each in zip(*inner, strict=True)) if inner else (0, 0, 0)
    )
    names = len(value) if isinstance(value, dict) else 0
    return strings + names, containers + 1, commas + max(0, len(value) - 1)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_parts_are_counted_as_they_are(monkeypatch, ascii_only):
    rng = random.Random(3)
    for _ in range(400):
        value = {"a": _any(rng)}
        body = json.dumps(value, ensure_ascii=ascii_only).encode()
        for limit, count in zip(
            ("MAX_STRINGS", "MAX_CONTAINERS", "MAX_VALUES"), _parts(value), strict=True
        ):
            with monkeypatch.context() as patch:
                patch.setattr(bounded_json, limit, count)
                assert read_object(body) == value
                patch.setattr(bounded_json, limit, count - 1)
                with pytest.raises(BadRequest, match="at most"):
                    read_object(body)
