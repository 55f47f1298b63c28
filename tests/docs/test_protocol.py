"""docs/protocol.md and the code have the same messages, fields, types, defaults and limits."""

import importlib

import pytest
from pydantic import BaseModel

from docs.fields import rows
from docs.markdown import ROOT, tables
from swarm.network.dht.records import ModelRecord, PeerRecord
from swarm.network.nat.dialback import DialRequest, DialResponse
from swarm.wire import codec, handshake
from swarm.wire.candidates import Candidates, HeadTerms
from swarm.wire.faults import FaultCode
from swarm.wire.forks import Fork
from swarm.wire.messages import Hop
from swarm.wire.taps import LayerOutputs, TapTerms
from swarm.wire.tensors import WireTensor

PAGE = ROOT / "docs" / "protocol.md"
KINDS: dict[str, type[BaseModel]] = {**handshake._KINDS, **codec._KINDS}
PARTS = {
    each.__name__: each
    for each in (
        Hop,
        WireTensor,
        HeadTerms,
        Candidates,
        TapTerms,
        LayerOutputs,
        Fork,
        PeerRecord,
        ModelRecord,
        DialRequest,
        DialResponse,
    )
}
TABLES = tables(PAGE)


def test_the_page_is_about_the_versions_that_are_spoken() -> None:
    page = PAGE.read_text()
    first, *_, last = codec.SUPPORTED_VERSIONS
    assert f"in version {codec.PROTOCOL_VERSION}: enough to write another" in page
    assert f"Ours speaks {first} to {last}." in page


def test_every_kind_of_message_is_listed() -> None:
    assert [row[0] for row in TABLES["Messages"]] == list(KINDS)


@pytest.mark.parametrize("name", [*KINDS, *PARTS])
def test_every_field_is_described(name: str) -> None:
    model = (KINDS | PARTS)[name]
    assert [tuple(row[:3]) for row in TABLES[name]] == rows(model)


def test_no_field_is_described_that_does_not_exist() -> None:
    of_fields = {heading for heading, table in TABLES.items() if len(table[0]) == 4} - {
        "Messages",
        "Faults",
    }
    assert of_fields == {*KINDS, *PARTS}


def test_every_fault_is_described() -> None:
    assert [row[0] for row in TABLES["Faults"]] == [code.value for code in FaultCode]


@pytest.mark.parametrize(("name", "value"), [row[1:] for row in TABLES["Limits"]])
def test_every_limit_is_what_the_code_says(name: str, value: str) -> None:
    module, _, constant = name.rpartition(".")
    assert float(value) == getattr(importlib.import_module(module), constant)
