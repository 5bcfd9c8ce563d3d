import pytest

from ukbob_jax.errors import FileError
from ukbob_jax.store import rows, schema

ROW = {"subject": "a", "shape": [1, 2, 3], "quality": {"seam": 0.5, "note": 'é "quoted"'}}


def test_a_row_comes_back_from_its_line():
    line = rows.encode_line(ROW)
    assert b"\n" not in line
    assert rows.decode_line(line, "x") == rows.decode_line(line + b"\n", "x") == ROW


def test_every_flipped_bit_and_every_cut_is_noticed():
    line = rows.encode_line({"subject": "a", "shape": [1, 2, 3]})
    broken = [
        line[:i] + bytes([line[i] ^ 1 << bit]) + line[i + 1 :] for i in range(len(line)) for bit in range(8)
    ]
    for wrong in [*broken, *(line[:end] for end in range(len(line)))]:
        with pytest.raises(FileError, match=r"^done\.json: damaged"):
            rows.decode_line(wrong, "done.json")


def test_a_row_holds_no_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        rows.encode_line({"a": float("nan")})


def test_an_empty_folder_becomes_a_store_and_another_is_refused(tmp_path):
    root = schema.open_root(tmp_path / "new")
    rows.create_or_open(root, "new")
    rows.create_or_open(root, "new")
    assert rows.decode_line((tmp_path / "new/store.json").read_bytes(), "x") == schema.FORMAT
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(FileError, match="other: not empty and not a store"):
        rows.create_or_open(schema.open_root(tmp_path / "other"), "other")


def test_another_version_is_refused():
    line = rows.encode_line({**schema.FORMAT, "version": 2})
    with pytest.raises(FileError, match=r"'version': 2.*this program reads.*'version': 1"):
        rows.check_format(line, "x")


def test_rows_are_read_in_order_and_a_missing_one_is_none(store):
    root = schema.open_root(store.path)
    assert [row.id for row in rows.read_rows(root)] == ["sub-0", "sub-1", "sub-2"]
    found = rows.read_done(root, "sub-1")
    assert found.digests and "digests" not in rows.without_digests(found)
    assert rows.read_done(root, "sub-9") is None
