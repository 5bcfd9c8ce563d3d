"""A real program in a process of its own: a small Python script."""

import sys
import time

import numpy as np
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.labelling.external import Program, ProgramError
from ukbob_jax.volumes.volume import Volume

THRESHOLD = """
import sys, nibabel, numpy
image = nibabel.load(sys.argv[1])
labels = (numpy.asanyarray(image.dataobj) > 50).astype("uint8")
nibabel.save(nibabel.Nifti1Image(labels, image.affine), sys.argv[2])
"""
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@pytest.fixture
def image() -> Volume:
    return Volume(np.random.default_rng(0).integers(0, 100, (6, 5, 7)).astype(np.int16), AFFINE)


@pytest.fixture
def program(tmp_path):
    def make(source: str, timeout_s: float = 60.0) -> Program:
        folder = tmp_path / "with a space"
        folder.mkdir(exist_ok=True)
        (folder / "script.py").write_text(source)
        return Program.parse(f"'{sys.executable}' '{folder}/script.py' {{input}} {{output}}", timeout_s)

    return make


def test_labels_come_from_a_program(program, image):
    np.testing.assert_array_equal(program(THRESHOLD).label(image), image.array > 50)


def test_another_orientation_of_the_answer_is_turned_back(program, image):
    turned = THRESHOLD.replace("labels, image.affine", "labels[::-1], image.affine @ FLIP")
    turned = turned.replace("image =", "FLIP = numpy.diag([-1.0, 1, 1, 1]); FLIP[0, 3] = 5\nimage =", 1)
    np.testing.assert_array_equal(program(turned).label(image), image.array > 50)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import sys; sys.exit('no licence')", "ended with exit code 1: no licence"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9: it said nothing"),
        ("", "wrote no"),
        ("import sys; open(sys.argv[2], 'w').write('x')", "output.nii.gz"),
        (THRESHOLD.replace("labels,", "labels[1:],"), "shape"),
        (THRESHOLD.replace("image.affine", "image.affine * 1.5"), "what .* wrote"),
    ],
)
def test_a_program_that_fails_is_told_in_one_line(program, image, source, words):
    with pytest.raises(ProgramError, match=words) as told:
        program(source).label(image)
    assert "\n" not in str(told.value)


def test_a_program_that_hangs_is_killed_with_its_children(program, image, tmp_path):
    alive = tmp_path / "alive"
    child = f"import time\nwhile True:\n    open({str(alive)!r}, 'a').write('.')\n    time.sleep(0.05)"
    hang = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    started = time.monotonic()
    with pytest.raises(ProgramError, match="over 2 s and was killed"):
        program(hang, timeout_s=2.0).label(image)
    assert time.monotonic() - started < 20
    size = alive.stat().st_size
    time.sleep(0.3)
    assert size and alive.stat().st_size == size


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("prog {input}", "no {output}"),
        ("no-such-labeller {input} {output}", "no program 'no-such-labeller'"),
        ("cp '{input} {output}", "quotation"),
    ],
)
def test_commands_that_cannot_run_are_refused_at_once(command, words):
    with pytest.raises(ConfigError, match=words):
        Program.parse(command, 1.0)
    with pytest.raises(ConfigError, match="timeout_s=0"):
        Program.parse("cp {input} {output}", 0)
