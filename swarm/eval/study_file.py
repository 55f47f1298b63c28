"""The file of a study: JSON lines, its settings first, then the facts of each text in order."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swarm.eval.run import EvalError
from swarm.eval.study import MissFacts, ProbeText, StudiedText
from swarm.util.files import write_whole
from swarm.util.json_lines import UnreadableData, read_json_lines

FORMAT = 1


def read_study(file: Path, settings: Mapping[str, Any]) -> list[StudiedText]:
    """Return the texts of a study's file; none if there is no file yet.

    Raises:
        EvalError: for a file of other settings.
        UnreadableData: for a file that is no study's.
    """
    if not file.exists():
        return []
    lines = list(read_json_lines(file))
    if not lines or lines[0][1] != _head(settings):
        raise EvalError(f"{file} is no study, or one of other settings; name another file")
    return [_facts(file, number, line) for number, line in lines[1:]]


def write_study(file: Path, settings: Mapping[str, Any], texts: Sequence[StudiedText]) -> None:
    """Write a study's file as a whole: an interruption leaves the old one or the new one."""
    lines = [_head(settings), *map(asdict, texts)]
    write_whole(file, "".join(json.dumps(line) + "\n" for line in lines))


def _head(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, **settings}


def _facts(file: Path, number: int, line: dict[str, Any]) -> StudiedText:
    try:
        misses = tuple(_miss(each) for each in line.pop("misses"))
        tokens = tuple(line.pop("tokens"))
        log_p = tuple(line.pop("log_p"))
        return StudiedText(tokens=tokens, log_p=log_p, misses=misses, **line)
    except (KeyError, TypeError, AttributeError):
        raise UnreadableData(file, "is no text of a study", number) from None


def _miss(line: dict[str, Any]) -> MissFacts:
    probe = line.pop("probe")
    if probe is not None:
        probe["tokens"] = tuple(probe["tokens"])
        probe["log_p"] = tuple(probe["log_p"])
        probe = ProbeText(**probe)
    return MissFacts(classes=tuple(line.pop("classes")), probe=probe, **line)
