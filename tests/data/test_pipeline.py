"""The stream of batches: its order, what is in it, and what it refuses."""

import collections
import shutil
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.conftest import SHAPE, TRAIN, image_of, label_of, stream, take
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes import intensity

ALL = (*TRAIN, "s5")


def equal(one: list[dict], two: list[dict]) -> bool:
    return len(one) == len(two) and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a) for a, b in zip(one, two)
    )


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    step=st.integers(0, 15),
    processes=st.sampled_from([1, 2, 4]),
    threads=st.sampled_from([1, 3]),
)
def test_batch_is_a_function_of_seed_and_step_alone(store, seed, step, processes, threads):
    whole = take(store, step + 3, seed=seed)[step:]
    shares = [
        take(store, 3, seed=seed, start_step=step, process=process, processes=processes, threads=threads)
        for process in range(processes)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in zip(*shares)
    ]
    assert equal(joined, whole)


@pytest.mark.slow
def test_reader_processes_give_the_same_batches(store):
    assert equal(take(store, 6, start_step=5, workers=2), take(store, 11)[5:])


def test_other_seeds_and_later_steps_differ(store):
    first = take(store, 2)
    assert not equal(first[:1], first[1:]) and not equal(first, take(store, 2, seed=4))


def test_every_epoch_visits_each_subject_once_in_a_new_order(store):
    found = np.concatenate([batch["subject"] for batch in take(store, 20, batch_size=5)]).reshape(20, 5)
    assert (np.sort(found, axis=1) == np.arange(5)).all()
    assert len(np.unique(found, axis=0)) > 10


def test_crops_hold_the_voxels_of_their_place_normalised(store):
    batch = take(store, 1, batch_size=20)[0]
    assert batch["image"].dtype == np.float32 and batch["image"].shape == (20, 8, 8, 8, 3)
    assert batch["label"].dtype == np.uint8 and batch["subject"].dtype == np.int32
    for image, label, subject in zip(batch["image"], batch["label"], batch["subject"]):
        stats = intensity.Statistics(**store.rows[TRAIN[subject]].intensity)
        raw = np.rint(image * np.array(stats.std)[None, None, None] + np.array(stats.mean)[None, None, None])
        start = raw[0, 0, 0].astype(int) - [100 * (subject + 1), 1, 1]
        window = tuple(slice(low, low + 8) for low in start)
        np.testing.assert_array_equal(raw, image_of(subject)[window])
        np.testing.assert_array_equal(label, label_of(subject)[window])


def test_foreground_crops_draw_classes_equally_whatever_their_size(store):
    found = collections.Counter()
    for batch in take(store, 50, batch_size=6, foreground=1.0, crop=(2, 2, 2), subjects=("s1", "s3")):
        found.update(batch["label"][:, 1, 1, 1].tolist())  # size // 2: the centre
    assert set(found) == {5, 7, 9}
    assert all(abs(count - 100) < 40 for count in found.values()), (
        found
    )  # 300 draws: 5 sigma of a binomial is 41


def test_share_of_foreground_crops_is_as_asked(store):
    centres = [
        batch["label"][:, 1, 1, 1] for batch in take(store, 50, batch_size=10, foreground=0.6, crop=(2, 2, 2))
    ]
    uniform = (label_of(0) > 0).mean()  # chance of a uniform crop to hit
    expected = 0.6 + 0.4 * uniform
    assert np.mean(np.concatenate(centres) > 0) == pytest.approx(
        expected, abs=0.1
    )  # 500 draws: 5 sigma is 0.11


def test_uniform_crops_reach_every_corner(store):
    starts = [
        batch["image"][:, 0, 0, 0]
        for batch in take(store, 40, batch_size=10, foreground=0.0, crop=(20, 18, 24))
    ]
    assert len(np.unique(np.concatenate(starts)[:, 1:], axis=0)) == 3 * 5  # y 0..2, z 0..4


def test_small_volumes_are_padded_evenly_and_ignored_there(store):
    batch = take(store, 1, crop=(32, 20, 31), batch_size=5)[0]
    inside = (slice(4, 28), slice(None), slice(1, 29))  # 4 + 4 and 1 + 2 voxels added
    for image, label, subject in zip(batch["image"], batch["label"], batch["subject"]):
        np.testing.assert_array_equal(label[inside], label_of(subject))
        outside = np.ones(label.shape, bool)
        outside[inside] = False
        assert (label[outside] == 255).all() and (image[outside] == 0).all() and (image[inside] != 0).any()


@pytest.mark.parametrize("action, value", [("ignore", 255), ("background", 0)])
def test_flagged_organs_take_no_part(store, action, value):
    flagged = {"s1": {5}, "s2": set()}
    batch = take(store, 1, crop=SHAPE, batch_size=5, flagged=flagged, action=action)[0]
    for label, subject in zip(batch["label"], batch["subject"]):
        expected = label_of(subject)
        if subject == 1:
            expected[expected == 5] = value
        np.testing.assert_array_equal(label, expected)


def test_flagged_organs_are_no_crop_centres(store):
    everywhere = {subject: {5} for subject in TRAIN}
    found = take(store, 10, crop=(2, 2, 2), foreground=1.0, flagged=everywhere)
    assert {int(centre) for batch in found for centre in batch["label"][:, 1, 1, 1]} == {7, 9}


def test_dropped_subjects_never_come(store):
    found = take(store, 10, flagged={"s1": {5}, "s4": {9}, "s0": set()}, action="drop")
    assert {int(subject) for batch in found for subject in batch["subject"]} == {0, 2, 3}


def test_label_map_merges_and_ignores(store):
    lookup = np.zeros(256, np.uint8)
    lookup[[5, 7, 9]] = 1, 1, 255
    batch = take(store, 1, crop=SHAPE, batch_size=5, lookup=lookup)[0]
    for label, subject in zip(batch["label"], batch["subject"]):
        np.testing.assert_array_equal(label, lookup[label_of(subject)])
    for batch in take(store, 10, crop=(2, 2, 2), foreground=1.0, lookup=lookup):
        assert (batch["label"][:, 1, 1, 1] == 1).all()


def test_contrasts_are_fed_in_the_order_asked_for(store):
    one, two = (take(store, 1, contrasts=names)[0]["image"] for names in (("other", "fat"), None))
    np.testing.assert_array_equal(one, two[..., [2, 0]])


def test_partial_annotation_is_told_per_class_and_only_then(store):
    assert "annotated" not in take(store, 1)[0]
    batch = take(store, 1, batch_size=6, subjects=ALL, num_classes=10)[0]
    rows = dict(zip(batch["subject"].tolist(), batch["annotated"]))
    assert np.flatnonzero(rows[5]).tolist() == [0, 5, 9] and all(rows[number].all() for number in range(5))
    lookup = np.zeros(256, np.uint8)
    lookup[[5, 7, 9]] = 1, 1, 2
    batch = take(store, 1, batch_size=6, subjects=ALL, num_classes=3, lookup=lookup)[0]
    assert dict(zip(batch["subject"].tolist(), batch["annotated"].tolist()))[5] == [True, False, True]


def test_weights_of_labels_come_with_each_row_and_only_where_given(store):
    assert "weights" not in take(store, 1)[0]
    batch = take(store, 1, batch_size=5, weights={"s1": {5: 0.5, 7: 0.25}}, num_classes=10)[0]
    rows = dict(zip(batch["subject"].tolist(), batch["weights"]))
    assert batch["weights"].dtype == np.float32 and batch["weights"].shape == (5, 10)
    assert rows[1][[0, 5, 7, 9]].tolist() == [1, 0.5, 0.25, 1] and (rows[0] == 1).all()
    both = take(store, 1, batch_size=4, views=2, weights={"s1": {5: 0.5}}, num_classes=10)[0]
    assert both["weights"].shape == (8, 10)


def test_groups_of_people_come_with_each_row_and_only_where_given(store):
    assert "groups" not in take(store, 1)[0]
    batch = take(store, 1, batch_size=5, groups={"s0": 0, "s1": 1, "s3": 0})[0]
    assert batch["groups"].dtype == np.int32
    assert dict(zip(batch["subject"].tolist(), batch["groups"].tolist())) == {0: 0, 1: 1, 2: -1, 3: 0, 4: -1}
    assert take(store, 1, batch_size=4, views=2, groups={"s1": 0})[0]["groups"].shape == (8,)


def test_classes_that_are_not_annotated_are_no_crop_centres(store):
    found = take(store, 10, subjects=("s5",), crop=(2, 2, 2), foreground=1.0)
    assert {int(centre) for batch in found for centre in batch["label"][:, 1, 1, 1]} == {5, 9}


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"batch_size": 3, "processes": 2}, ConfigError, "batch_size 3 must be a positive multiple of the 2"),
        ({"crop": (8, 8)}, ConfigError, "three positive numbers"),
        ({"views": 0}, ConfigError, "views 0: expected 1 or more"),
        ({"max_shift": -1}, ConfigError, "max_shift -1: expected a number of voxels from 0"),
        ({"foreground": 1.5}, ConfigError, r"foreground 1.5: expected a fraction in \[0, 1\]"),
        ({"damaged": "ignore"}, ConfigError, "damaged='ignore': expected stop or skip"),
        ({"process": 2, "processes": 2}, ConfigError, "process 2 is not one of 2 processes"),
        ({"seed": -1}, ConfigError, "seed -1, start_step 0: expected whole numbers from 0"),
        ({"normalize": "minmax"}, ConfigError, "normalize='minmax'"),
        ({"subjects": ()}, ConfigError, "the list is empty"),
        ({"subjects": ("s9",)}, ConfigError, "no subject 's9'"),
        ({"label": "manual"}, ConfigError, "no label set 'manual'; it has auto"),
        ({"action": "erase"}, ConfigError, "expected one of ignore, drop, background"),
        (
            {"flagged": {s: {5} for s in TRAIN}, "action": "drop"},
            ConfigError,
            "every subject has a flagged",
        ),
        ({"contrasts": ("fat", "t2")}, MismatchError, r"s0 has contrasts .* not \['t2'\]"),
    ],
)
def test_unusable_settings_are_told_at_the_call(store, changes, error, message):
    with pytest.raises(error, match=message):
        next(stream(store, **changes))


def test_damaged_shard_stops_the_stream_and_names_the_subject(store, tmp_path):
    shutil.copytree(store.path, tmp_path / "copy")
    copy = Store.open(tmp_path / "copy")
    shard = next(path for path in (tmp_path / "copy/subjects/s2/0001/image/c").rglob("*") if path.is_file())
    data = bytearray(shard.read_bytes())
    data[50] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(FileError, match="subject s2, image: damaged"):
        take(copy, 5, batch_size=5)
    with pytest.warns(UserWarning, match="subject s2, image: damaged.* Such crops are ignored") as told:
        found = take(copy, 5, batch_size=5, damaged="skip")
    assert len(told) == 1 and any(np.all(batch["label"] == 255, axis=(1, 2, 3)).any() for batch in found)
    for batch, whole in zip(found, take(store, 5, batch_size=5), strict=True):
        lost = np.all(batch["label"] == 255, axis=(1, 2, 3))
        assert np.all(batch["subject"][lost] == TRAIN.index("s2")) and np.isfinite(batch["image"]).all()
        for name in batch:
            np.testing.assert_array_equal(batch[name][~lost], whole[name][~lost])


def test_closing_stops_the_reading_threads(store):
    before = threading.active_count()
    source = stream(store, batch_size=2, seed=0, threads=4)
    next(source)
    assert threading.active_count() > before
    source.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_without_labels_come_the_images_alone(store):
    for batch, labelled in zip(take(store, 3, label=None), take(store, 3, foreground=0.0)):
        assert set(batch) == {"image", "subject"}
        for name in batch:  # the same places: none is drawn around a class
            np.testing.assert_array_equal(batch[name], labelled[name])
    padded = take(store, 1, label=None, crop=(32, 20, 31), batch_size=5)[0]["image"]
    inside = (slice(None), slice(4, 28), slice(None), slice(1, 29))
    assert (padded[inside] != 0).any() and np.count_nonzero(padded) == np.count_nonzero(padded[inside])


def starts_of(store, batch):
    """Where each row's crop began, x y z, from voxel values that say so."""
    places = []
    for image, subject in zip(batch["image"], batch["subject"]):
        stats = intensity.Statistics(**store.rows[TRAIN[subject]].intensity)
        raw = np.rint(image[0, 0, 0] * np.array(stats.std) + np.array(stats.mean)).astype(int)
        places.append(raw - [100 * (subject + 1), 1, 1])
    return np.array(places)


def test_views_of_a_sample_are_neighbouring_rows_and_the_first_is_the_sample_alone(store):
    for batch, alone in zip(take(store, 4, views=3), take(store, 4)):
        assert batch["image"].shape == (12, 8, 8, 8, 3) and batch["label"].shape == (12, 8, 8, 8)
        for name in alone:
            np.testing.assert_array_equal(batch[name][::3], alone[name])
        np.testing.assert_array_equal(batch["subject"], np.repeat(alone["subject"], 3))
        assert len(np.unique(starts_of(store, batch), axis=0)) > 4


def test_views_begin_no_further_apart_than_asked(store):
    apart = []
    for batch in take(store, 20, views=2, max_shift=2, label=None):
        starts = starts_of(store, batch)
        apart.append(np.abs(starts[::2] - starts[1::2]))
    assert np.max(apart) == 2
    for batch in take(store, 3, views=2, max_shift=0):
        np.testing.assert_array_equal(batch["image"][::2], batch["image"][1::2])


def test_processes_share_whole_samples(store):
    whole = take(store, 3, views=2)
    parts = [take(store, 3, views=2, process=process, processes=2) for process in range(2)]
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*parts)]
    assert equal(joined, whole)


def test_batches_are_the_same_with_scans_kept_decoded(store):
    assert equal(take(store, 6, cache_gb=0, packed=True), take(store, 6, cache_gb=1, packed=True))


def test_a_set_that_fits_is_decoded_once(store, tmp_path):
    """Once every chunk was met the files may go: none is opened again."""
    shutil.copytree(store.path, tmp_path / "store")
    source = stream(Store.open(tmp_path / "store"), crop=SHAPE, foreground=0, threads=1)
    for _ in range(2 * len(TRAIN)):
        next(source)
    for shard in (tmp_path / "store/subjects").glob("*/*/*/c"):
        shutil.rmtree(shard)
    assert len([next(source) for _ in range(8)]) == 8
    source.close()


def test_a_set_that_does_not_fit_is_read_anew(store, tmp_path):
    shutil.copytree(store.path, tmp_path / "store")
    copy = Store.open(tmp_path / "store")
    size = sum(copy.rows[subject].decoded_bytes("auto") for subject in TRAIN)
    source = stream(copy, crop=SHAPE, foreground=0, threads=1, cache_gb=size / 1e9)  # without room to spare
    next(source)
    for shard in (tmp_path / "store/subjects").glob("*/*/*/c"):
        shutil.rmtree(shard)
    with pytest.raises(FileError, match="subject s"):
        [next(source) for _ in range(8)]
    source.close()
