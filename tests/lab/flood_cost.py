"""The cost of a flooded key to its readers and to the nodes that store it: time and memory.

python tests/lab/flood_cost.py
"""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer

from helpers.dht import record_of, signed_value
from swarm.identity import Identity
from swarm.network.dht.rpc_gater import STORE_BYTES, _sift
from swarm.network.dht.storage import MAX_KEY_BYTES, MAX_RECORDS, BoundedStorage
from swarm.network.dht.validator import RecordValidator

RUNS = 5


def packed(records: dict[object, bytes], expiration: float) -> bytes:
    made = DictionaryDHTValue()
    for subkey, value in records.items():
        made.store(subkey, value, expiration)
    data: bytes = MSGPackSerializer.dumps(made)
    return data


def read(validator: RecordValidator, key: bytes, answer: bytes) -> None:
    """Read one answer as the gater and the protocol do."""
    result = dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=answer)
    _sift(result)
    if result.type == dht_pb2.FOUND_DICTIONARY:
        validator.sift(key, MSGPackSerializer.loads(result.value))


def milliseconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        began = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - began))
    return statistics.median(times)


@click.command()
def main() -> None:
    expiration = time.time() + 60
    owners = [Identity.generate() for _ in range(MAX_RECORDS)]
    key = DHTID.generate(record_of(owners[0]).key())
    genuine = {each.peer_id: signed_value(each, record_of(each), expiration) for each in owners}
    forged = {peer_id: value[:-64] + bytes(64) for peer_id, value in genuine.items()}
    entry = len(packed({"": b""}, expiration))
    garbage: dict[object, bytes] = {number: b"" for number in range(MAX_KEY_BYTES // 13)}
    click.echo("| one answer to a reader | bytes | ms |")
    click.echo("|---|---|---|")
    for name, records in (
        ("genuine records", genuine),
        ("forged records", forged),
        ("tiny garbage", garbage),
    ):
        answer = packed(records, expiration)
        spent = milliseconds(
            lambda data=answer: read(RecordValidator("test"), key.to_bytes(), data)
        )
        click.echo(f"| {len(records)} {name} | {len(answer)} | {spent:.0f} |")
    known = RecordValidator("test")
    again = packed(dict(genuine), expiration)
    read(known, key.to_bytes(), again)
    click.echo(
        f"| the same genuine ones from the next node | {len(again)} | "
        f"{milliseconds(lambda: read(known, key.to_bytes(), again)):.0f} |"
    )

    per_record = milliseconds(lambda: read(RecordValidator("test"), key.to_bytes(), again)) / len(
        genuine
    )
    size = statistics.fmean(len(value) for value in genuine.values()) + entry
    click.echo(
        f"{per_record:.2f} ms a record; {STORE_BYTES} bytes a minute from one caller are "
        f"{STORE_BYTES / size:.0f} records, {STORE_BYTES / size * per_record:.0f} ms a minute"
    )

    tracemalloc.start()
    shelf = BoundedStorage()
    for peer_id, value in genuine.items():
        shelf.store_subkey(key, peer_id, bytes(bytearray(value)), expiration)
    click.echo(
        f"{tracemalloc.get_traced_memory()[0] / len(genuine):.0f} bytes of memory a stored record "
        f"of {statistics.fmean(map(len, genuine.values())):.0f}"
    )


if __name__ == "__main__":
    main()
