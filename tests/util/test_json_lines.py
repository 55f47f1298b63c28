"""JSON lines, packed or not, and what is said of a file that has none."""

import gzip

import pytest

from swarm.util import json_lines
from swarm.util.json_lines import UnreadableData, read_json_lines


@pytest.mark.parametrize("packed", [False, True])
def test_each_line_is_an_object_with_its_number(packed, tmp_path):
    file = tmp_path / ("data.jsonl.gz" if packed else "data.jsonl")
    content = b'{"a": 1}\n\n{"b": "\xc3\xa9"}\n'
    file.write_bytes(gzip.compress(content) if packed else content)
    assert list(read_json_lines(file)) == [(1, {"a": 1}), (3, {"b": "é"})]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1}\nnot json', "line 2, is no JSON object"),
        (b"[1]", "line 1, is no JSON object"),
        (b"[" * 100_000, "line 1, is no JSON object"),  # deeper than the parser goes
        (None, "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_sentence(content, words, tmp_path):
    file = tmp_path / "data.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UnreadableData) as caught:
        list(read_json_lines(file))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_archive_cannot_be_read(tmp_path):
    file = tmp_path / "data.jsonl.gz"
    file.write_bytes(gzip.compress(b"x" * 1000)[:-20])
    with pytest.raises(UnreadableData, match="cannot be read"):
        list(read_json_lines(file))


def test_what_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_BYTES", 1000)
    file = tmp_path / "data.jsonl.gz"
    file.write_bytes(gzip.compress(b"\n" * 1001))
    with pytest.raises(UnreadableData, match="larger"):
        list(read_json_lines(file))
