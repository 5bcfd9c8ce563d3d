import pytest

from ukbob_jax import files
from ukbob_jax.errors import FileError, GeometryError, InputError, SomeFailed, ValuesError
from ukbob_jax.failures import Failures


@pytest.fixture
def path(tmp_path):
    return tmp_path / "failures.jsonl"


def test_some_failed_lists_them_by_subject(path):
    failures = Failures(path)
    failures.add("s2", "b.nii", "read", FileError("b.nii: cut off"))
    failures.add("s1", "a.nii", "convert", ZeroDivisionError("by zero"))
    with pytest.raises(
        SomeFailed,
        match=r"^2 of 3 subjects failed, listed in .*failures\.jsonl\. The first: s1: ZeroDivision",
    ):
        failures.conclude(3)
    assert files.read_jsonl(path) == [
        {"subject": "s1", "file": "a.nii", "stage": "convert", "reason": "ZeroDivisionError: by zero"},
        {"subject": "s2", "file": "b.nii", "stage": "read", "reason": "b.nii: cut off"},
    ]
    assert files.read_jsonl(path) == failures.to_json() and len(failures) == 2


def test_without_failures_an_old_list_goes(path):
    path.write_text("{}\n")
    Failures(path).conclude(3)
    assert not path.exists()


@pytest.mark.parametrize(
    "errors, kind, expected",
    [
        ((GeometryError("x"), GeometryError("y")), None, GeometryError),
        ((GeometryError("x"), ValuesError("y")), None, InputError),
        ((GeometryError("x"), ValuesError("y")), FileError, FileError),
        ((GeometryError("x"), GeometryError("y")), SomeFailed, SomeFailed),
    ],
)
def test_where_all_failed_the_error_is_the_one_they_share_or_the_jobs(path, errors, kind, expected):
    failures = Failures(path, "label maps", kind)
    for number, error in enumerate(errors):
        failures.add(f"s{number}", "", "measure", error)
    with pytest.raises(expected, match=r"^(all 2|2 of 2) label maps failed, .* The first: s0: x$") as caught:
        failures.conclude(2)
    assert type(caught.value) is expected


def test_the_only_subject_fails_with_its_own_reason(path):
    failures = Failures(path)
    failures.add("s1", "a.nii", "read", FileError("a.nii: cut off"))
    with pytest.raises(FileError, match=r"^s1: a\.nii: cut off$"):
        failures.conclude(1)
    assert len(files.read_jsonl(path)) == 1
