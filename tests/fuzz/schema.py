"""Values for pydantic models, made from their JSON schemas: new message types need no work here."""

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ValidationError

from swarm.identity import Identity

try:
    from re import _constants as codes
    from re import _parser as patterns
except ImportError:  # Python 3.10
    import sre_constants as codes
    import sre_parse as patterns

MANY = 40  # entries and bytes as a rule,
MOST = 300  # and now and then as many as the bound says, if that is no more than this
LARGE = 0.001  # the share of tensors that have megabytes
TRIES = 50
IDENTITIES = [Identity(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(1, 5)]

Fields = dict[str, Any]


def valid(model: type[BaseModel], random: Random) -> Fields:
    """Return the fields of a valid instance, as msgpack carries them.

    Raises:
        AssertionError: if none is found, because fields depend on each other in a way that `FIXES`
            does not cover.
    """
    for _ in range(TRIES):
        fields = _of_model(_schema(model), _schema(model).get("$defs", {}), random)
        try:
            model.model_validate(fields)
        except ValidationError as error:
            why = error
        else:
            return fields
    raise AssertionError(f"no valid {model.__name__} was found, add to FIXES: {why}")


@cache
def _schema(model: type[BaseModel]) -> Fields:
    return model.model_json_schema()


def _of_model(schema: Fields, defs: Fields, random: Random) -> Fields:
    required = schema.get("required", [])
    fields = {
        name: _of(part, defs, random)
        for name, part in schema.get("properties", {}).items()
        if name in required or random.random() < 0.5
    }
    FIXES.get(schema["title"], lambda fields, random: None)(fields, random)
    return fields


def _of(schema: Fields, defs: Fields, random: Random) -> Any:
    if "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return random.choice(schema["enum"])
    if "anyOf" in schema:
        return _of(random.choice(schema["anyOf"]), defs, random)
    match schema.get("type"):
        case "object":
            return _of_model(schema, defs, random)
        case "array" if "prefixItems" in schema:
            return [_of(part, defs, random) for part in schema["prefixItems"]]
        case "array":
            count = _count(schema, "Items", random)
            return [_of(schema["items"], defs, random) for _ in range(count)]
        case "string" if schema.get("format") == "binary":
            return random.randbytes(_count(schema, "Length", random))
        case "string" if "pattern" in schema:
            return _matching(patterns.parse(schema["pattern"].replace(r"\z", "$")), random)
        case "string":
            return "".join(
                random.choice("az09.:/ é\n\u2028\x7f")
                for _ in range(_count(schema, "Length", random))
            )
        case "integer":
            return _between(*_bounds(schema, 1), random)
        case "number":
            low, high = _bounds(schema, 0.0)
            return random.choice(
                (low, high, random.uniform(low, high), float(int(low)), -0.0 if low == 0 else low)
            )
        case "boolean":
            return random.random() < 0.5
    return None


def _count(schema: Fields, of: str, random: Random) -> int:
    """Return a number of items or characters: usually small, sometimes the maximum."""
    least, most = schema.get(f"min{of}", 0), schema.get(f"max{of}", MANY)
    return (
        most
        if most <= MOST and random.random() < 0.03
        else _between(least, max(least, min(most, MANY)), random)
    )


def _bounds(schema: Fields, step: float) -> tuple[Any, Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -(1 << 31)))
    high = (
        schema["maximum"] if "maximum" in schema else schema.get("exclusiveMaximum", 1 << 31) - step
    )
    return low, high


def _between(low: int, high: int, random: Random) -> int:
    """Return a number that is usually small, and sometimes a bound."""
    chance = random.random()
    if chance < 0.1:
        return random.choice((low, high))
    return random.randint(low, min(high, low + 8) if chance < 0.8 else high)


def _matching(pattern: Any, random: Random) -> str:
    """Return a text for a pattern of literals, sets and repetitions."""
    text = ""
    for code, value in pattern:
        if code is codes.LITERAL:
            text += chr(value)
        elif code is codes.IN:
            kind, some = random.choice(value)
            text += chr(some if kind is codes.LITERAL else random.randint(*some))
        elif code is codes.MAX_REPEAT:
            least, most, inner = value
            text += "".join(
                _matching(inner, random)
                for _ in range(_between(least, min(most, least + MANY), random))
            )
    return text


def _fix_tensor(fields: Fields, random: Random) -> None:
    size = 4 if fields["dtype"] == "float32" else 2
    most = (
        (256, 4096)
        if random.random() < LARGE
        else random.choice(((1, 4), (3, 32), (20, 4), (256, 1)))
    )
    fields["tokens"], fields["hidden"] = (
        min(fields["tokens"], most[0]),
        min(fields["hidden"], most[1]),
    )
    fields["data"] = random.randbytes(size * fields["tokens"] * fields["hidden"])


def _fix_frame(fields: Fields, random: Random) -> None:
    tokens, hidden = fields.get("tokens"), fields.get("hidden")
    if (tokens is None) == (hidden is None):
        fields["hidden"], fields["tokens"] = (
            None,
            tokens or [random.randrange(97) for _ in range(3)],
        )
    count = len(fields["tokens"]) if fields.get("tokens") else fields["hidden"]["tokens"]
    fields["tail"] = 0 if fields.get("replay") is not None else random.randint(0, count)
    if fields.get("parents") is not None:
        fields["parents"] = [random.choice((1, 1, 2, 5)) for _ in range(count)]


def _fix_result(fields: Fields, random: Random) -> None:
    hidden, told = fields.get("hidden"), fields.get("candidates")
    if (hidden is None) == (told is None):
        fields["candidates"] = None
        fields["hidden"] = hidden or {
            "dtype": "float32",
            "tokens": 0,
            "hidden": 4,
            "data": b"",
        }
    carried = fields.get("candidates")
    tail = len(carried["counts"]) if carried else fields["hidden"]["tokens"]
    fields["count"] = max(fields["count"], tail)


def _fix_terms(fields: Fields, random: Random) -> None:
    wanted = fields.get("wanted", b"")
    fields["wanted"] = wanted[: len(wanted) // 4 * 4]


def _fix_candidates(fields: Fields, random: Random) -> None:
    counts = [random.choice((1, 8, 64)) for _ in range(min(len(fields["counts"]), 4))]
    size = 4 * sum(counts)
    fields["counts"] = counts
    whole = len(counts) == 1 and random.random() < 0.5
    fields["tokens"] = b"" if whole else random.randbytes(size)
    fields["logits"] = random.randbytes(size)
    fields["log_sums"] = random.randbytes(16 * len(counts))


def _fix_open(fields: Fields, random: Random) -> None:
    if fields.get("next") is not None:
        fields["head"] = None
    fields["first"] = min(fields["first"], 999)
    fields["last"] = random.randint(fields["first"] + 1, 1000)
    if fields.get("taps") is not None:
        fields["taps"]["layers"] = [random.randrange(fields["first"], fields["last"])]
    if fields.get("fork") is not None:
        fields["max_tokens"] = max(2, fields["max_tokens"])
        fields["fork"]["count"] = random.randrange(1, fields["max_tokens"])


def _fix_taps(fields: Fields, random: Random) -> None:
    fields["layers"] = sorted(set(fields["layers"]))


def _fix_outputs(fields: Fields, random: Random) -> None:
    fields["tokens"], fields["hidden"] = min(fields["tokens"], 20), min(fields["hidden"], 64)
    _fill_outputs(fields, random)


def _fill_outputs(fields: Fields, random: Random) -> None:
    rows, float8 = fields["tokens"] * fields["layers"], fields["dtype"] == "float8_e4m3fn"
    size = 1 if float8 else 4 if fields["dtype"] == "float32" else 2
    fields["data"] = random.randbytes(size * rows * fields["hidden"])
    fields["scales"] = random.randbytes(4 * rows * float8)


def _fix_tapped(fields: Fields, random: Random) -> None:
    _fix_taps(fields, random)
    fields["outputs"]["layers"] = len(fields["layers"])
    _fill_outputs(fields["outputs"], random)


def _fix_record(fields: Fields, random: Random) -> None:
    fields["peer_id"] = random.choice(IDENTITIES).peer_id
    if "first_layer" in fields:
        fields["first_layer"] = random.randrange(fields["model_layers"])
        fields["last_layer"] = random.randint(fields["first_layer"] + 1, fields["model_layers"])
        fields["addresses"] = [random.choice(ADDRESSES) for _ in range(random.randint(1, 3))]
        fields["free_cache_tokens"] = random.choice((0, 1, 4096, 2**48))


def _fix_address(name: str) -> Callable[[Fields, Random], None]:
    def fix(fields: Fields, random: Random) -> None:
        if fields.get(name) is not None:
            fields[name] = random.choice(ADDRESSES)

    return fix


ADDRESSES = ("127.0.0.1:9000", "[2001:db8::1]:443", "peer.example.org:65535")
# What fields of one model demand of each other, by the model's name; called with fields that fit
# one by one.
FIXES: dict[str, Callable[[Fields, Random], None]] = {
    "WireTensor": _fix_tensor,
    "Frame": _fix_frame,
    "Result": _fix_result,
    "Open": _fix_open,
    "HeadTerms": _fix_terms,
    "Candidates": _fix_candidates,
    "TapTerms": _fix_taps,
    "LayerOutputs": _fix_outputs,
    "Tapped": _fix_tapped,
    "PeerRecord": _fix_record,
    "ModelRecord": _fix_record,
    "DialRequest": _fix_address("address"),
    "DialResponse": _fix_address("tried"),
}
