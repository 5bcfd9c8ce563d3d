"""Grades of a store's labels: written beside SOLF's verdicts, not computed twice, and refused where they mean nothing."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny_sentinel
from tests.tiny_sentinel import recipe
from ukbob_jax import anatomy, files, weights
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.jobs import sentinel as job
from ukbob_jax.quality import decisions, grades, verdicts
from ukbob_jax.sentinel import embeddings, trained
from ukbob_jax.sentinel import sight as sights
from ukbob_jax.sentinel.resnet import ResNet50
from ukbob_jax.sentinel.sight import Sight
from ukbob_jax.sentinel.trained import TrainedGrader
from ukbob_jax.sentinel.volumes import VolumeGrader
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.case import Description

pytestmark = pytest.mark.usefixtures("quick_compilation")
SUBJECTS = 5


def grader(seed=0, table=None, modality="MR"):
    """A network that was never trained: its grades are arbitrary, but functions of what it sees."""
    table = embeddings.taxonomy() if table is None else table
    fields = {"network_fields": tiny_sentinel.NETWORK, "hidden": 4, "context": 4}
    model = VolumeGrader(table.vectors.shape[1], **fields)
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 8, 8, 8, 2)))
    sight = Sight("cubes", 8, 20.0, modality, "percentile")
    return TrainedGrader(model, variables, table, sight, anatomy.NUM_CLASSES, interval=0.1)


@pytest.fixture(scope="module")
def first():
    return grader()


@pytest.fixture
def store(tmp_path):
    tiny_sentinel.write_store(tmp_path / "store", subjects=SUBJECTS, held_out=0)
    return tmp_path / "store"


@pytest.fixture
def use(monkeypatch):
    def put(grader):
        counted = []
        found = TrainedGrader.grade

        def grade(self, *args, **options):
            counted.append(1)
            return found(self, *args, **options)

        monkeypatch.setattr(TrainedGrader, "grade", grade)
        monkeypatch.setattr(trained, "open_grader", lambda *_: grader)
        return counted

    return put


def run(store, tmp_path, **changes):
    job.run(recipe(store, "grade", **changes), str(tmp_path / "work"))
    return verdicts.folder(store, "manual") / grades.GRADES


def test_every_label_is_graded_once(store, tmp_path, first, use):
    counted = use(first)
    path = run(store, tmp_path)
    assert len(counted) == SUBJECTS
    found, opened = grades.read(store, "manual"), Store.open(store)
    assert {s: set(of) for s, of in found.items()} == {
        s: set(opened.present(s, "manual")) for s in opened.rows
    }
    image = opened.read("p1", "image")[..., 3]
    labels = opened.read("p1", "label/manual")
    direct = first.grade(image, labels, opened.rows["p1"].spacing_mm)
    for organ, grade in found["p1"].items():
        np.testing.assert_allclose(
            [grade.dice, grade.low, grade.high],
            [direct.dice[organ], direct.low[organ], direct.high[organ]],
            rtol=1e-6,
        )
        assert (
            grade.used == direct.slices[organ] > 0
            and grade.flagged == (grade.dice < 0.5)
            and not grade.reason
        )
    before = path.read_bytes()
    run(store, tmp_path)
    assert len(counted) == SUBJECTS + 1 and path.read_bytes() == before  # the one more is this test's own


def test_changed_labels_and_another_grader_are_graded_anew(store, tmp_path, first, use):
    counted = use(first)
    run(store, tmp_path)
    other = Store.open(store).read("p0", "label/manual")[::-1]
    with StoreWriter(store) as writer:
        writer.write_label("p0", "manual", np.ascontiguousarray(other), {})
    before = grades.read(store, "manual")
    run(store, tmp_path)
    after = grades.read(store, "manual")
    assert len(counted) == SUBJECTS + 1 and before["p0"] != after["p0"] and before["p1"] == after["p1"]
    use(grader(1))
    run(store, tmp_path)
    assert grades.read(store, "manual")["p1"] != after["p1"]


def test_shares_make_the_grades_of_one_process(store, tmp_path, first, use):
    use(first)
    whole = run(store, tmp_path).read_bytes()
    folder = verdicts.folder(store, "manual")
    for path in folder.iterdir():
        path.unlink()
    counted = use(first)
    for process in range(2):
        run(store, tmp_path, **{"sentinel.process": process, "sentinel.processes": 2})
        assert not (folder / grades.GRADES).exists()
    cut = folder / f"{job.CACHE}.1-of-2.jsonl"
    cut.write_text(
        cut.read_text()[:-30]
    )  # a machine that was lost while it wrote: that subject is graded again
    assert run(store, tmp_path).read_bytes() == whole
    assert len(counted) == SUBJECTS + 1


def test_the_threshold_flags_and_decisions_overrule_it(store, tmp_path, first, use):
    use(first)
    run(store, tmp_path, **{"sentinel.threshold": 1.0})
    organs = list(grades.read(store, "manual")["p0"])
    choices = [
        {"subject": "p0", "organ": organs[0], "decision": "keep"},
        {"subject": "p9", "organ": organs[0], "decision": "keep"},
    ]
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"format": decisions.FORMAT, "label": "manual", "decisions": choices}))
    run(store, tmp_path, **{"sentinel.threshold": 1.0, "sentinel.decisions": str(path)})
    found = grades.read(store, "manual")
    kept = found["p0"][organs[0]]
    assert not kept.flagged and kept.decision == "keep" and kept.trust == 1
    assert all(found["p0"][organ].flagged for organ in organs[1:])


def test_a_class_without_an_embedding_fails_its_subject_alone(store, tmp_path, use):
    ours = embeddings.taxonomy()
    vectors = ours.vectors.copy()
    lost = Store.open(store).present("p0", "manual")[0]
    vectors[lost] = np.nan
    use(grader(table=ours._replace(vectors=vectors)))
    alone = np.full(tiny_sentinel.SHAPE, lost + 1, np.uint8)
    with StoreWriter(store) as writer:
        writer.write_label("p1", "manual", alone, {})
    with pytest.raises(SomeFailed, match=r"4 of 5 label maps failed.*no embedding of class"):
        run(store, tmp_path)
    rows = files.read_jsonl(tmp_path / "work" / "failures.jsonl")
    assert [row["subject"] for row in rows] == ["p0", "p2", "p3", "p4"] and rows[0]["stage"] == "grade"
    assert set(grades.read(store, "manual")) == {"p1"}


def test_ct_is_refused_by_a_grader_of_mr(tmp_path, first, use):
    tiny_sentinel.write_store(tmp_path / "ct", subjects=1, held_out=0, description=Description(modality="CT"))
    use(first)
    with pytest.raises(FileError, match="CT given to a grader of MR"):
        run(tmp_path / "ct", tmp_path)


def test_what_is_not_there_is_said(store, tmp_path, first, use):
    for where in ("", str(tmp_path / "nowhere")):
        with pytest.raises(FileError, match="no grader there"):
            run(store, tmp_path, **{"sentinel.grader": where})
    with pytest.raises(FileError, match=r"sentinel\.json: no grader there"):
        run(store, tmp_path, **{"sentinel.grader": str(store)})
    use(first)
    with pytest.raises(ConfigError, match="no subject has a label set 'auto'"):
        run(store, tmp_path, label="auto")
    with pytest.raises(ConfigError, match="looks at one contrast; choose from"):
        run(store, tmp_path, **{"data.contrasts": ()})
    with pytest.raises(ConfigError, match="process 2 of 2"):
        run(store, tmp_path, **{"sentinel.process": 2, "sentinel.processes": 2})


def test_a_released_file_grades_with_its_embeddings(store, tmp_path, monkeypatch):
    """Its grades are not squashed; in the file they are within 0 and 1."""
    small = functools.partial(ResNet50, depths=(1,), width=4, hidden=4)
    model = small(num_classes_embedding=17)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 2)))
    params = jax.tree.map(lambda p: 3 * p, variables["params"])
    weights.save(
        tmp_path / "grader.pth", params, model, model_state={"batch_stats": variables["batch_stats"]}
    )
    np.save(tmp_path / "clip.npy", embeddings.taxonomy().vectors)
    monkeypatch.setattr(trained, "ResNet50", small)
    monkeypatch.setitem(sights.SIZES, "slices", 32)
    given = {
        "sentinel.grader": str(tmp_path / "grader.pth"),
        "sentinel.embeddings": str(tmp_path / "clip.npy"),
    }
    run(store, tmp_path, **given)
    found = grades.read(store, "manual")["p0"]
    assert all(
        0 <= grade.dice <= 1 and grade.low is None and 0 < grade.used <= 10 for grade in found.values()
    )
    monkeypatch.undo()
    with pytest.raises(FileError, match=r"taxonomy: embeddings are read from"):
        run(store, tmp_path, **{**given, "sentinel.embeddings": "taxonomy"})
