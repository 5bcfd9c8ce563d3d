"""The schemas are schemas, and refuse what is no such file. Files of real runs: tests/test_config_fields.py."""

import json
import re

import jsonschema
import pytest

from tools.site import formats
from ukbob_jax.errors import FileError, SomeFailed
from ukbob_jax.failures import FILE, Failures
from ukbob_jax.quality import decisions

SCHEMAS = formats.schemas()
MEASURES = {"body_fraction": 0.1, "sphericity": None, "eccentricity": 0.5}
SOLF = {"subject": "s", "organ": 5, **MEASURES, "outside": [], "flagged": True}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_and_says_where_the_file_lies(name):
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] and schema["description"] and isinstance(schema["x-lines"], bool)
    assert schema["x-path"].endswith(".jsonl" if schema["x-lines"] else ".json")
    assert set(schema["required"]) <= schema["properties"].keys()
    missing = [field for field, part in schema["properties"].items() if not part.get("description")]
    assert name == "splits" or not missing, missing


def test_rows_that_are_wrong_are_refused():
    formats.check("solf", SOLF)
    for change in ({"organ": "liver"}, {"outside": ["size"]}, {"more": 1}, {"flagged": 1}):
        with pytest.raises(jsonschema.ValidationError):
            formats.check("solf", SOLF | change)
    with pytest.raises(jsonschema.ValidationError, match="'flagged' is a required property"):
        formats.check("solf", {name: value for name, value in SOLF.items() if name != "flagged"})


def test_a_file_is_checked_line_by_line(tmp_path):
    path = tmp_path / "quality" / "auto" / "solf.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(SOLF) + "\n" + json.dumps(SOLF | {"organ": 0}) + "\n")
    assert formats.of(path) == "solf" and formats.of(tmp_path / "other.json") == ""
    with pytest.raises(jsonschema.ValidationError):
        formats.check_file("solf", path)


def test_failures_and_decisions_are_as_their_schemas_say(tmp_path):
    failed = Failures(tmp_path / FILE)
    failed.add("s1", "s1.nii.gz", "read", FileError("s1.nii.gz: truncated. Copy it again."))
    with pytest.raises(SomeFailed):
        failed.conclude(2)
    assert formats.of(tmp_path / FILE) == "failures" and formats.check_file("failures", tmp_path / FILE) == 1
    example = re.search(r"\{.*?\]\}", decisions.__doc__, re.DOTALL)[0]
    (tmp_path / "decisions.json").write_text(example)
    assert formats.check_file("decisions", tmp_path / "decisions.json") == 1
    assert decisions.read(tmp_path / "decisions.json", "auto")[0].decision == "keep"
