"""Scripts of what strangers do to two peers: generated, changed, played, and written as JSON.

A step is a list: who acts, what they do, and with what. Bytes are hex. A message stands in its step
as it travels, so that a script stays the same whatever the program becomes.
"""

import asyncio
import json
from random import Random
from typing import Any

import msgpack
import torch

from fuzz.arena import (
    CACHE_TOKENS,
    FINGERPRINT,
    SAID_BY_SINKS,
    Arena,
    Honest,
    Stranger,
    hop_to,
    id_of,
    settle,
)
from fuzz.mutate import ODD, changed
from fuzz.schema import valid
from swarm.wire import codec
from swarm.wire.tensors import WireTensor

HIDDEN, VOCAB = 32, 97
CLIENT, SESSIONS = ("one", "two", "three"), 3
STEPS = (4, 40)
NEXT = ("a", "b", "sink0", "sink1", "nobody", "slow")
WAITS_S = (1, 5, 12, 70, 130)

Step = list[Any]
Script = list[Step]


class Author:
    """Generates a script. It tracks its sessions, so that most steps are nearly right."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._sessions: list[dict[str, Any]] = []
        self._said: list[bytes] = []

    def script(self) -> Script:
        count = self._random.randint(*STEPS)
        return [self._step() for _ in range(count)]

    def _step(self) -> Step:
        random = self._random
        client, host = random.randrange(len(CLIENT)), random.randrange(2)
        if not self._sessions or (len(self._sessions) < 8 and random.random() < 0.2):
            return self._say(client, host, "open", self._open(client, host))
        session = random.choice(self._sessions)
        if random.random() < 0.9:
            client, host = session["client"], session["host"]
        match random.choices(range(11), (40, 6, 5, 4, 4, 4, 3, 6, 5, 5, 4))[0]:
            case 0:
                return self._say(client, host, "frame", self._frame(session))
            case 1:
                session["epoch"] += random.choice((0, 1, 1, 3))
                return self._say(
                    client, host, "cancel", {"session": session["id"], "epoch": session["epoch"]}
                )
            case 2:
                return self._say(client, host, "reroute", self._reroute(session))
            case 3:
                to = random.choice((None, *NEXT))
                fields = {"session": session["id"], "to": to and hop_to(to).model_dump()}
                return self._say(client, host, "mirror", fields)
            case 4:
                named = [
                    id_of(name) for name in random.sample(("a", "b", *CLIENT), random.randrange(3))
                ]
                fields = random.choice(({}, {}, {"speakers": named}))
                kind = "heed" if fields else random.choice(("probe", "close"))
                return self._say(client, host, kind, {"session": session["id"], **fields})
            case 5:
                return self._say(client, host, "ping", {"nonce": 1})
            case 6:
                kind = random.choice(list(codec._KINDS))
                return self._say(client, host, kind, valid(codec._KINDS[kind], random))
            case 7:
                return [client, host, random.choice(("vanish", "stall", "mute"))]
            case 8:
                return ["time", "wait", random.choices(WAITS_S, (8, 4, 2, 1, 1))[0]]
            case 9:
                return self._of_next(session)
            case _:
                return ["time", "settle", random.choice((1, 10, 100))]

    def _say(self, client: int | str, host: int, kind: str, fields: dict[str, Any]) -> Step:
        random = self._random
        if random.random() < 0.06:
            fields = fields | {random.choice(list(fields)): random.choice(ODD[:36])}
        data: bytes = msgpack.packb([codec.PROTOCOL_VERSION, kind, fields])
        if random.random() < 0.03:
            data = changed(data, self._said, random)[:5000]
        self._said.append(data)
        return [client, host, "say" if random.random() > 0.005 else "raw", data.hex()]

    def _open(self, client: int, host: int) -> dict[str, Any]:
        random = self._random
        first, last = random.choice(((0, 2), (0, 4), (2, 4), (1, 3), (0, 1)))
        name = random.choice((None, None, *NEXT))
        fields = {
            "session": b"%016d" % random.randrange(SESSIONS),
            "fingerprint": FINGERPRINT,
            "first": first,
            "last": last,
            "max_tokens": random.choice((1, 8, 40, 40, 40, CACHE_TOKENS)),
            "next": name and hop_to(name).model_dump(),
            "previous": random.choice((None, None, *map(id_of, ("a", "b", *CLIENT)))),
            "epoch": random.choice((0, 0, 0, 2)),
        }
        self._sessions.append(
            {
                "id": fields["session"],
                "client": client,
                "host": host,
                "first": first,
                "epoch": fields["epoch"],
            }
            | {"last": 0, "root": 0, "next": name}
        )
        return fields

    def _frame(self, session: dict[str, Any]) -> dict[str, Any]:
        random, count = self._random, self._random.choice((1, 1, 2, 3, 8, 64))
        if random.random() < 0.15:
            session["epoch"] += 1
            session["root"] = random.randint(0, session["last"])
        first = session["last"] + 1
        fields: dict[str, Any] = {
            "session": session["id"],
            "epoch": session["epoch"],
            "root": session["root"],
        }
        if random.random() < 0.1:
            name, value = random.choice(
                (("epoch", max(0, session["epoch"] - 1)), ("root", first + 7), ("root", 1))
            )
            fields[name] = value
        if random.random() < 0.07:
            first = max(1, first + random.choice((-3, -1, 1, 5)))
        replay = random.choice((None,) * 8 + (0, 1, 64))
        fields |= {
            "first": first,
            "tail": 0 if replay is not None else random.choice((0, 1, count, count)),
        }
        if replay is not None:
            fields["replay"] = replay
        if random.random() < 0.25:
            fields["parents"] = [1 + random.randrange(min(first + n, 4)) for n in range(count)]
        if (session["first"] == 0) != (random.random() < 0.04):
            fields["tokens"] = [
                random.randrange(VOCAB + (random.random() < 0.01)) for _ in range(count)
            ]
        else:
            fields["hidden"] = self._hidden(count)
        session["last"] = first + count - 1
        if random.random() < 0.3:
            session["root"] = random.randint(min(session["root"], session["last"]), session["last"])
        return fields

    def _hidden(self, count: int) -> dict[str, Any]:
        random = self._random
        width = HIDDEN if random.random() < 0.95 else random.choice((1, 31, 33))
        dtype = (
            torch.float32
            if random.random() < 0.9
            else random.choice((torch.float16, torch.bfloat16))
        )
        values = torch.full((count, width), random.choice((0.0, 0.5, -1.0, 1e4)), dtype=dtype)
        if random.random() < 0.2:
            values[random.randrange(count)] = random.choice(
                (float("nan"), float("inf"), float("-inf"), 6e4, 3e38)
            )
        return WireTensor.pack(values).model_dump()

    def _reroute(self, session: dict[str, Any]) -> dict[str, Any]:
        random = self._random
        session["epoch"] += random.choice((0, 1, 1, 1))
        name = random.choice(NEXT)
        fields = {
            "session": session["id"],
            "epoch": session["epoch"],
            "root": random.randint(0, session["last"] + 1),
            "next": hop_to(name).model_dump(),
            "replay": random.choice((0, 0, 1, None)),
        }
        return fields

    def _of_next(self, session: dict[str, Any]) -> Step:
        random = self._random
        sink = random.choice(("sink0", "sink1"))
        if random.random() < 0.4:
            return [sink, 0, random.choice(("vanish", "stall", "mute"))]
        if random.random() < 0.7:
            code = random.choice(("no_session", "busy", "out_of_order", "internal", "draining"))
            return self._say(
                sink, 0, "fault", {"code": code, "text": SAID_BY_SINKS, "session": session["id"]}
            )
        return self._say(sink, 0, "pong", {"nonce": 3})


def altered(script: Script, others: list[Script], random: Random) -> Script:
    """Return a script with steps removed, doubled, moved, or taken from another script."""
    steps = list(script)
    for _ in range(random.choice((1, 2, 4))):
        at = random.randrange(len(steps) + 1)
        match random.randrange(5):
            case 0:
                del steps[at : at + random.choice((1, 1, 4))]
            case 1:
                steps[at:at] = steps[at : at + random.choice((1, 1, 3))]
            case 2:
                random.shuffle(steps[at : at + 4])
                steps[at : at + 4] = reversed(steps[at : at + 4])
            case 3 if others:
                other = random.choice(others)
                start = random.randrange(len(other))
                steps[at:at] = other[start : start + random.choice((1, 4, 8))]
            case _:
                if at < len(steps) and len(steps[at]) == 4:
                    data = changed(bytes.fromhex(steps[at][3]), [], random)[:5000]
                    steps[at] = [*steps[at][:3], data.hex()]
    return steps[: 2 * STEPS[1]] or list(script)


async def play(script: Script, arena: Arena) -> list[str]:
    """Play a script against two peers, beside an honest client.

    Return what went wrong; `arena.kinds` has the kinds of messages that strangers received.
    """
    honest = Honest(arena)
    strangers: dict[tuple[int, int], Stranger] = {}
    await honest.open()
    for number, step in enumerate(script):
        if arena.failures:
            break
        await _do(step, arena, strangers, honest)
        if number % 12 == 6:
            await honest.speak(1 + number % 3)
    await honest.speak(3)
    await honest.close()
    await arena.leave()
    await arena.close()
    return arena.failures


async def _do(
    step: Step, arena: Arena, strangers: dict[tuple[int, int], Stranger], honest: Honest
) -> None:
    match step:
        case ["time", "wait", seconds]:
            await arena.skip(min(seconds, max(WAITS_S)))
            if honest.grows_impatient:
                await honest.speak(1)
        case ["time", "settle", rounds]:
            await settle(rounds)
            await asyncio.sleep(0.001)
        case [who, host, verb, *rest]:
            stranger = arena.sinks.get(who)
            if isinstance(who, int):
                stranger = strangers.get((who, host))
                if stranger is None or stranger.link.closed:
                    stranger = strangers[who, host] = await arena.stranger(
                        await arena.hosts[host].link(CLIENT[who])
                    )
            if stranger is not None:
                _act(stranger, verb, *rest)
            await settle(4)


def _act(stranger: Stranger, verb: str, data: str = "") -> None:
    match verb:
        case "say":
            stranger.say(bytes.fromhex(data))
        case "raw":
            stranger.say(bytes.fromhex(data), framed=False)
        case "vanish":
            stranger.vanish()
        case "stall":
            stranger.stall()
        case "mute":
            stranger.mute()


def written(script: Script) -> str:
    return "[\n" + ",\n".join(json.dumps(step) for step in script) + "\n]\n"
