import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.quality import measure, stack
from ukbob_jax.sentinel import embeddings


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_the_taxonomy_knows_every_structure_and_tells_all_apart():
    found = embeddings.taxonomy()
    assert np.flatnonzero(~found.known).tolist() == [0, anatomy.UNUSED]
    vectors = found.vectors[found.known]
    assert len(np.unique(vectors.round(4), axis=0)) == len(vectors) == 71


def test_like_organs_have_like_vectors():
    table, ids = embeddings.taxonomy().vectors, anatomy.IDS
    artery, other, liver = (table[ids[n]] for n in ("iliac_artery_left", "iliac_artery_right", "liver"))
    assert cosine(artery, other) > 0.8 > 0.3 > cosine(artery, liver)
    assert cosine(table[ids["femur_left"]], table[ids["humerus_left"]]) > cosine(
        table[ids["femur_left"]], liver
    )


def test_one_hot_and_joined_vectors():
    both = embeddings.join(embeddings.one_hot(), embeddings.taxonomy())
    assert both.vectors.shape == (73, 73 + 17)
    assert both.known.sum() == 71
    assert both.of([5, 5])[1, :73].argmax() == 5


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_given_vectors_are_read(tmp_path, suffix):
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = tmp_path / f"clip{suffix}"
    if suffix == ".npy":
        np.save(path, vectors)
    else:
        np.savez(path, **{"0": vectors[0], "spleen": vectors[1][None], "2": vectors[2], "3": vectors[3]})
    found = embeddings.load(path, 6)
    np.testing.assert_array_equal(found.of([1, 3]), vectors[[1, 3]])
    with pytest.raises(
        ValueError, match=rf"clip{suffix}: no embedding of class 4 \(gallbladder\), 9 \(adrenal"
    ):
        found.of([1, 4, 9])


def test_measured_vectors_put_mirrored_organs_at_mirrored_places():
    subjects = []
    for shift in range(3):
        labels = np.zeros((20, 12, 12), np.uint8)
        labels[1 + shift : 4 + shift, 4:8, 2:10] = 1
        labels[14 + shift : 17 + shift, 4:8, 2:10] = 2
        labels[9 + shift, 5, 5] = 3
        subjects.append(measure(labels, (1, 1, 1), 5))
    found = embeddings.measured(stack(subjects))
    assert np.flatnonzero(found.known).tolist() == [1, 2, 3]
    first, second = found.of([1, 2])
    np.testing.assert_allclose(first[1:], second[1:], atol=1e-5)
    assert first[0] < 0 < second[0]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.pkl", b"", "embeddings are read from .npy or .npz"),
        ("a.npy", b"no array", "damaged, or no file of NumPy arrays"),
        ("b.npz", {"tail": np.ones(3)}, "'tail' is no class number"),
        ("c.npz", {"1": np.ones(3), "2": np.ones(4)}, r"vectors of \[3, 4\] numbers"),
        ("d.npy", None, "no such file"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, name, content, what):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(ValueError, match=what) as error:
        embeddings.load(path)
    assert "\n" not in str(error.value)
