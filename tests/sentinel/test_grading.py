import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ukbob_jax as bob
from ukbob_jax.sentinel import embeddings, grading, intervals, preprocessing
from ukbob_jax.sentinel.resnet import ResNet50
from ukbob_jax.sentinel.sight import usual
from ukbob_jax.sentinel.volumes import VolumeGrader

NET = {"n_stages": 2, "features_per_stage": (4, 6), "strides": (1, 2), "n_conv_per_stage": 1}
SIZES = {"slices": 16, "cubes": 8}


@pytest.fixture(scope="module")
def scan():
    image = np.random.default_rng(0).gamma(2, 100, (24, 20, 18)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[3:9, 4:15, 2:16], labels[12:20, 5:12, 3:7], labels[22, 18, 17] = 1, 2, 5
    labels[0, 0, 0] = 255
    return image, labels


@pytest.fixture(scope="module")
def table():
    return embeddings.one_hot(8)


def build(kind, **fields):
    if kind == "slices":
        model = ResNet50(8, depths=(1,), width=4, hidden=3, **fields)
        shape = (1, 16, 16, 2)
    else:
        model = VolumeGrader(8, network_fields=NET, hidden=3, **fields)
        shape = (1, 8, 8, 8, 2)
    variables = dict(jax.jit(model.init)(jax.random.key(0), jnp.zeros(shape)))
    # far from zero, so that grades differ
    variables["params"] = jax.tree.map(
        lambda p: p + 0.1 * jnp.sin(jnp.arange(p.size).reshape(p.shape)), variables["params"]
    )
    return model, variables


@pytest.fixture(scope="module")
def graders():
    return {kind: build(kind) for kind in SIZES}


def run(graders, kind, scan, *, margin=20, modality="MR", **options):
    sight = usual(graders[kind][0], modality)._replace(size=SIZES[kind], margin=margin)
    return grading.grade(*graders[kind], *scan, (1, 1, 2), num_classes=8, sight=sight, **options)


def test_grades_of_slices_are_those_of_the_slices_one_by_one(graders, scan, table):
    found = run(graders, "slices", scan, embeddings=table, margin=3)
    model, variables = graders["slices"]
    image, labels = scan
    window = preprocessing.window(image, "MR")
    inside = np.flatnonzero((labels == 1).any((0, 1)))[preprocessing.slices_used(14)]
    assert found.slice_index[1].tolist() == inside.tolist()
    for place, z in enumerate(inside):
        shown, mask = (a[::-1, ::-1, z].T for a in (image, labels == 1))
        seen = preprocessing.prepare(shown, mask, size=16, margin=3, window=window)
        want = model.apply(variables, seen[None], table.of([1]))[0]
        assert found.slice_dice[1, place] == pytest.approx(float(want), abs=1e-5)
    assert found.dice[1] == pytest.approx(found.slice_dice[1].mean(), abs=1e-6)
    assert found.slices.tolist() == [0, 10, 4, 0, 0, 1, 0, 0]
    assert len({float(found.dice[c]) for c in (1, 2, 5)}) == 3


def test_grades_of_volumes_are_those_of_the_cubes_one_by_one(graders, scan, table):
    found = run(graders, "cubes", scan, embeddings=table, margin=4)
    model, variables = graders["cubes"]
    image, labels = scan
    window = np.float32(preprocessing.window(image, "MR"))
    for label, first, last in ((1, (3, 4, 2), (8, 14, 15)), (5, (22, 18, 17), (22, 18, 17))):
        cube = preprocessing.cube(first, last, (1, 1, 2), 4)
        seen = preprocessing.prepare_cubes(
            image, (labels == label)[None], cube.start[None], cube.stop[None], window, 8
        )
        want = model.apply(variables, seen, table.of([label]), preprocessing.place(cube, image.shape)[None])[
            0
        ]
        assert found.dice[label] == pytest.approx(float(want), abs=1e-5)
    assert found.slices.tolist() == [0, 14, 4, 0, 0, 1, 0, 0]
    assert found.slice_dice.shape == (8, 0)


@pytest.mark.parametrize("kind", SIZES)
def test_an_empty_mask_gets_0_and_its_reason(graders, scan, table, kind):
    found = run(graders, kind, scan, embeddings=table, classes=(1, 3), interval=0.2)
    assert (found.dice[3], found.low[3], found.high[3], found.reason[3]) == (0, 0, 0, "empty mask")
    assert np.isnan(found.dice[2])
    assert found.reason[2] == "not asked for"
    assert found.reason[1] == ""
    nothing = run(graders, kind, (scan[0], 0 * scan[1]), embeddings=table)
    assert (nothing.dice[1:] == 0).all()


def test_intervals_lie_around_the_grade_and_within_0_and_1(graders, scan, table):
    found = run(graders, "cubes", scan, embeddings=table, interval=np.linspace(0, 0.7, 8))
    for c, width in ((1, 0.1), (2, 0.2), (5, 0.5)):
        assert found.low[c] == pytest.approx(max(found.dice[c] - width, 0), abs=1e-6)
        assert found.high[c] == pytest.approx(min(found.dice[c] + width, 1), abs=1e-6)
    assert np.isnan(run(graders, "cubes", scan, embeddings=table).low[1])


def test_scans_of_like_size_share_one_program(graders, scan, table):
    program = grading._program(graders["slices"][0], "slices", 16, 16)
    compiled = []
    for size in (24, 19):
        run(graders, "slices", tuple(a[:size] for a in scan), embeddings=table, margin=3)
        compiled.append(program._cache_size())
    assert compiled[0] == compiled[1] > 0


def test_a_detector_and_learned_embeddings(scan):
    graders = {"cubes": build("cubes", detection=True, learned_classes=8)}
    found = run(graders, "cubes", scan)
    assert np.isfinite(found.repair[[1, 2, 5]]).all()
    assert np.isnan(found.repair[3])


def test_the_conformal_width_holds_its_promise():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        errors = rng.normal(size=60)
        width = intervals.conformal_width(errors[:59], 0 * errors[:59], 0.8)
        covered.append(abs(errors[59]) <= width)
    assert 0.74 < np.mean(covered) < 0.87
    assert intervals.conformal_width([0.1] * 5, [0.2] * 5, 0.9) == 1  # five cases cannot promise 90 %


def hu(image):
    return np.where(image > 100, 40.0, -1000.0)


@pytest.mark.parametrize(
    ("change", "options", "what"),
    [
        (lambda i, m: (i, m[1:]), {}, r"labels of shape \(23, 20, 18\) for an image of shape \(24, 20, 18\)"),
        (lambda i, m: (hu(i), m), {}, "CT in HU given to a grader of MR"),
        (lambda i, m: (i / i.max(), m), {"modality": "CT"}, "a grader of CT needs HU"),
        (lambda i, m: (i, np.where(m == 5, 7, m)), {"table": 6}, r"no embedding of class 7 \(pancreas\)"),
        (lambda i, m: (i, m), {"classes": (1, 9)}, r"no embedding of class 9 \(adrenal_gland_left\)"),
        (lambda i, m: (i, np.where(m == 5, 9, m)), {}, r"labels run from 0 to 9: need 0..7"),
        (lambda i, m: (np.where(m == 2, np.nan, i), m), {}, "224 voxels are NaN"),
        (lambda i, m: (i, m.astype(float)), {}, "labels are float64"),
        (lambda i, m: (np.stack([i, i], -1), m), {}, "a grader sees one contrast"),
        (lambda i, m: (i, m), {"embeddings": None}, "this grader needs embeddings="),
        (
            lambda i, m: (i, m),
            {"embeddings": np.zeros((8, 3))},
            r"vectors are \(8, 3\), the grader wants \(k, 8\)",
        ),
    ],
)
def test_bad_input_is_one_line(graders, scan, table, change, options, what):
    options = {"embeddings": table, **options}
    if (known := options.pop("table", None)) is not None:
        vectors = table.vectors.copy()
        vectors[known:] = np.nan
        options["embeddings"] = embeddings.Embeddings(vectors, "clip.npz")
    with pytest.raises(ValueError, match=what) as error:
        run(graders, "cubes", change(*scan), **options)
    assert "\n" not in str(error.value)


def test_the_public_names():
    assert bob.sentinel.grade is grading.grade
    assert bob.sentinel.VolumeGrader is VolumeGrader
