"""The files that jobs write, from their JSON schemas in `docs/reference/schemas`."""

import functools
import json
import pathlib
import re
from typing import Any

from tools.site.tables import code, table

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reference" / "schemas"
ENDING = ".schema.json"


@functools.cache
def schemas() -> dict[str, dict[str, Any]]:
    """Name -> schema, in alphabetical order. `x-path` says where the file lies, `x-lines` that each line is a value."""
    return {
        path.name.removesuffix(ENDING): json.loads(path.read_text())
        for path in sorted(FOLDER.glob(f"*{ENDING}"))
    }


def all_formats() -> str:
    """A section per file."""
    ordered = sorted(schemas().items(), key=lambda item: item[1]["x-path"])
    return "\n\n".join(_section(name, schema) for name, schema in ordered)


def _section(name: str, schema: dict[str, Any]) -> str:
    form = "a JSON object per line" if schema["x-lines"] else "one JSON value"
    head = f"## {schema['title']}\n\n`{schema['x-path']}`, {form}; [schema](schemas/{name}{ENDING})."
    parts = {**schema["properties"], **schema.get("patternProperties", {})}
    if isinstance(schema.get("additionalProperties"), dict):
        parts |= schema["additionalProperties"].get("properties", {})
    needed = schema["required"] + (
        schema["additionalProperties"].get("required", []) if _inner(schema) else []
    )
    rows = (
        (code(n), _kind(p), "" if n in needed else "optional", p.get("description", ""))
        for n, p in parts.items()
    )
    return f"{head}\n\n{schema['description']}\n\n{table(('field', 'type', '', 'meaning'), rows)}"


def _inner(schema: dict[str, Any]) -> bool:
    return isinstance(schema.get("additionalProperties"), dict)


def _kind(part: dict[str, Any]) -> str:
    kinds = part.get("type", "any")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    inner = f" of {_kind(part['items'])}" if "array" in kinds and part.get("items") else ""
    return ", or ".join(f"{kind}{inner}" if kind == "array" else kind for kind in kinds)


def of(path: pathlib.Path) -> str:
    """The name of the schema of a file, by where it lies: the one that says most of its place; empty: none."""
    fitting = {}
    for name, schema in schemas().items():
        place = (
            schema["x-path"].partition("/")[2] or schema["x-path"]
        )  # without the folder that the user names
        pattern = re.sub(r"[A-Z]{2,}|(?<=seed)S", "*", place)
        if path.match(pattern):
            fitting[name] = len(pattern.replace("*", ""))
    return max(fitting, key=lambda name: fitting[name], default="")


def check(name: str, value: Any) -> None:
    """Compare a value with a schema.

    Raises:
        jsonschema.ValidationError: where it differs.
    """
    import jsonschema  # of the tests; building the site needs none

    jsonschema.Draft202012Validator(schemas()[name]).validate(value)


def check_file(name: str, path: pathlib.Path) -> int:
    """Compare every value of a file with its schema, and count them.

    Raises:
        jsonschema.ValidationError: where the first differs.
    """
    text = path.read_text()
    values = (
        [json.loads(line) for line in text.splitlines()] if schemas()[name]["x-lines"] else [json.loads(text)]
    )
    for value in values:
        check(name, value)
    return len(values)
