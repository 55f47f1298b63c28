"""The fields of a message or record, in the words of docs/protocol.md."""

from typing import Any

from pydantic import BaseModel

Row = tuple[str, str, str]  # name, type, default ("" where the field must be there)
Schema = dict[str, Any]


def rows(model: type[BaseModel]) -> list[Row]:
    """Return one row per field, in the order of encoding."""
    schema = model.model_json_schema()
    needed, defs = schema.get("required", []), schema.get("$defs", {})
    return [
        (name, _type(part, defs), "" if name in needed else _literal(part["default"]))
        for name, part in schema["properties"].items()
    ]


def _type(part: Schema, defs: Schema) -> str:
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return _type(defs[name], defs) if "enum" in defs[name] else name
    if "anyOf" in part:
        return " or ".join(_type(each, defs) for each in part["anyOf"])
    if "const" in part:
        return f'"{part["const"]}"'
    if "enum" in part:
        return ", ".join(f'"{each}"' for each in part["enum"])
    if part.get("format") == "binary":
        return f"bytes, {_size(part, 'Length')}"
    if "pattern" in part:
        return "str, " + part["pattern"].removeprefix("^").removesuffix("$").removesuffix(r"\z")
    return _SIMPLE[part["type"]](part, defs)


def _number(word: str, part: Schema) -> str:
    least, most = part.get("minimum"), part.get("maximum")
    if "exclusiveMaximum" in part:
        return f"{word}, {_short(least)} to {_short(part['exclusiveMaximum'])} - 1"
    if least is None and most is None:
        return word
    return (
        f"{word}, from {_short(least)} on"
        if most is None
        else f"{word}, {_short(least)} to {_short(most)}"
    )


def _list(part: Schema, defs: Schema) -> str:
    if "prefixItems" in part:
        return f"[{'; '.join(_type(each, defs) for each in part['prefixItems'])}]"
    return f"list, {_size(part, 'Items')}, of {_type(part['items'], defs)}"


_SIMPLE = {
    "null": lambda part, defs: "nil",
    "boolean": lambda part, defs: "bool",
    "integer": lambda part, defs: _number("int", part),
    "number": lambda part, defs: _number("float", part),
    "string": lambda part, defs: f"str, {_size(part, 'Length')}" if "maxLength" in part else "str",
    "array": _list,
}


def _size(part: Schema, of: str) -> str:
    least, most = part.get(f"min{of}", 0), part[f"max{of}"]
    return str(most) if least == most else f"{least} to {_short(most)}"


def _short(number: float) -> str:
    """Write powers of two from 2^16 on as such."""
    whole = int(number)
    if whole >= 1 << 16 and whole & (whole - 1) == 0:
        return f"2^{whole.bit_length() - 1}"
    return f"{number:g}"


def _literal(default: object) -> str:
    if default is None:
        return "nil"
    if isinstance(default, str):
        return f'"{default}"'
    return str(default).lower() if isinstance(default, bool) else str(default)
