"""What a training learns from, opened from a recipe."""

import dataclasses

import numpy as np
import pytest

from configs import common
from tests.data.conftest import SHAPE, TRAIN, label_of
from ukbob_jax import files, settings
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.quality import grades
from ukbob_jax.quality.grades import Grade
from ukbob_jax.regions import Regions
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.case import Description


def recipe(store, **changes):
    given = {
        "store": store.path, "label": "auto", "data.flagged": "off", "data.val_label": "auto", "data.crop": (8, 8, 8),
        "data.batch_size": 2, "data.threads": 1, "model.out_channels": 10,
    }  # fmt: skip
    return settings.with_fields(common.base().copy_and_resolve_references(), {**given, **changes})


def opened(store, tmp_path, **changes):
    return TrainingData.open(recipe(store, **changes), str(tmp_path))


def test_it_holds_what_the_recipe_names(store, tmp_path):
    data = opened(store, tmp_path)
    assert data.subjects == TRAIN and data.held_out == ("s5",) and data.label == "auto"
    assert data.contrasts == ("fat", "water", "other") and data.num_classes == 10
    assert data.names[0] == "background" and data.names[9] == "class_9" and data.lookup is None
    assert data.largest_label()[1] == 9
    some = opened(store, tmp_path, **{"data.contrasts": ("water",), "model.out_channels": 0})
    assert some.contrasts == ("water",) and some.num_classes == 10


def test_organs_become_ids_of_their_own(store, tmp_path):
    data = opened(store, tmp_path, **{"data.organs": ("liver",)})
    assert data.names == {0: "background", 1: "liver"} and data.lookup[5] == 1 and data.lookup[9] == 0
    counts = data.class_frequencies()
    liver = sum((label_of(number) == 5).sum() for number in range(5))
    assert counts.tolist() == [5 * np.prod(SHAPE) - liver, liver]


def test_the_fingerprint_follows_what_is_learnt_from(store, tmp_path):
    data = opened(store, tmp_path)
    assert data.fingerprint() == opened(store, tmp_path, **{"data.contrasts": ("fat",)}).fingerprint()
    fewer = dataclasses.replace(data, subjects=TRAIN[:2])
    flagged = dataclasses.replace(data, flagged={"s0": {5}})
    images = opened(store, tmp_path, label="")
    assert len({d.fingerprint() for d in (data, fewer, flagged, images)}) == 4


@pytest.fixture
def people(tmp_path):
    """Two women, a man, and one whose sex is not known; another validates."""
    about = [
        {"sex": "F", "age_years": 49},
        {"sex": "M", "age_years": 51},
        {"sex": "F", "age_years": 58},
        {},
        {},
    ]
    with StoreWriter(tmp_path / "people") as writer:
        for number, attributes in enumerate(about):
            writer.write(
                f"s{number}", np.full((*SHAPE, 1), number, np.int16), np.eye(4), {"auto": label_of(number)},
                source=str(number), split="train" if number < 4 else "val", attributes=attributes,
            )  # fmt: skip
    return Store.open(tmp_path / "people")


def test_groups_of_people_are_those_of_the_attribute_that_the_loss_names(people, tmp_path):
    plain = opened(people, tmp_path)
    assert plain.groups == {} and plain.group_names == ()
    with pytest.warns(UserWarning, match="'sex' is not known of 1 of 4 subjects"):
        by_sex = opened(people, tmp_path, **{"loss.groups": "sex"})
    assert by_sex.groups == {"s0": "F", "s1": "M", "s2": "F"} and by_sex.group_names == ("F", "M")
    with pytest.warns(UserWarning, match="'age' is not known"):
        by_age = opened(people, tmp_path, **{"loss.groups": "age"})
    assert by_age.group_names == ("40 to 50 years", "50 to 60 years") and by_age.groups["s2"].startswith("50")
    assert len({d.fingerprint() for d in (plain, by_sex, by_age)}) == 3
    stream = by_sex.batches(recipe(people, **{"data.batch_size": 4}), 0)
    batch = next(stream)
    stream.close()
    assert dict(zip(batch["subject"].tolist(), batch["groups"].tolist())) == {0: 0, 1: 1, 2: 0, 3: -1}


@pytest.mark.parametrize(
    "attribute, message",
    [
        ("colour", "config.loss.groups: 'colour' is unknown; choose from age, "),
        ("site", r"by 'site' the training subjects are of fewer than two groups \(none\)"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(people, tmp_path, attribute, message):
    with pytest.raises(ConfigError, match=message):
        opened(people, tmp_path, **{"loss.groups": attribute})


def test_without_a_label_set_come_images_and_as_many_views_as_asked(store, tmp_path):
    config = recipe(store, label="")
    data = TrainingData.open(config, str(tmp_path))
    stream = data.batches(config, 0, views=2)
    batch = next(stream)
    stream.close()
    assert batch["stored"].shape == (4, 3, 8, 8, 8) and "label" not in batch and "lookup" not in batch
    assert batch["subject"][0] == batch["subject"][1]


def test_spacing_is_the_median_and_common_only_where_it_is_shared(store, tmp_path):
    data = opened(store, tmp_path)
    assert data.median_spacing() == [8.0, 8.0, 8.0] == data.common_spacing()


def test_extremes_and_heavy_tails_are_those_of_the_training_subjects(tmp_path):
    calm = np.random.default_rng(0).normal(25, 3, (*SHAPE, 2)).astype(np.float32)
    hot = calm.copy()
    hot[5, 5, 5, 1] = 1e6
    with StoreWriter(tmp_path / "store") as writer:
        for name, image, spacing, split in (
            ("a", calm, (2, 2, 3), "train"), ("b", hot, (1, 2, 4), "train"), ("c", hot, (9, 9, 9), "val"),
        ):  # fmt: skip
            affine = np.diag([*map(float, spacing), 1.0])
            writer.write(
                name, image, affine, {"auto": label_of(0)}, source=name, split=split, contrasts=("r1", "t2")
            )
    data = opened(Store.open(tmp_path / "store"), tmp_path)
    assert data.heavy_tails() == {"t2": 1}
    assert data.extremes() == {
        "spacing_mm": [[1, 2, 3], [2, 2, 4]],
        "extent_mm": [[SHAPE[0], 2 * SHAPE[1], 3 * SHAPE[2]], [2 * SHAPE[0], 2 * SHAPE[1], 4 * SHAPE[2]]],
        "hu": [False, False],
    }


def test_scans_unlike_the_others_are_told_when_training_starts(tmp_path):
    image = np.random.default_rng(0).normal(25, 3, (*SHAPE, 1)).astype(np.float32)
    with StoreWriter(tmp_path / "store") as writer:
        for name, spacing in (("a", 2.0), ("b", 2.0), ("c", 0.2), ("d", 9.0)):
            affine = np.diag([spacing, spacing, spacing, 1.0])
            split = "val" if name == "d" else "train"
            writer.write(
                name, image, affine, {"auto": label_of(0)}, source=name, split=split, contrasts=("t2",)
            )
    with pytest.warns(UserWarning, match=r"store: 1 of 3 scans \(c\): voxels of 0.2 x 0.2 x 0.2 mm"):
        opened(Store.open(tmp_path / "store"), tmp_path)


def described(folder, names_of):
    """A store of three subjects whose label sets have these names: subject -> id -> name."""
    image = np.random.default_rng(0).normal(25, 3, (*SHAPE, 1)).astype(np.float32)
    label = label_of(1) % 4  # ids 1 and 3
    label[:2] = 2
    with StoreWriter(folder / "store") as writer:
        for number, (name, names) in enumerate(names_of.items()):
            about = Description(modality="MR", contrasts=("t1",), label_names={"auto": names})
            writer.write(
                name, image * (number + 1), np.eye(4), {"auto": label}, source=name, split="train", description=about
            )  # fmt: skip
    return Store.open(folder / "store")


def test_a_contrast_that_only_validation_lacks_is_refused_before_the_first_step(tmp_path):
    image = np.random.default_rng(0).normal(25, 3, (*SHAPE, 2)).astype(np.float32)
    with StoreWriter(tmp_path / "store") as writer:
        for name, split, contrasts in (("a", "train", ("t1", "t2")), ("b", "val", ("t1", "flair"))):
            writer.write(
                name, image, np.eye(4), {"auto": label_of(0)}, source=name, split=split, contrasts=contrasts
            )
    with pytest.raises(
        ConfigError, match=r"config.data.contrasts: b has contrasts \['t1', 'flair'\], not \['t2'\]"
    ):
        opened(Store.open(tmp_path / "store"), tmp_path)


CHANGES = {"model.out_channels": 0, "data.val_split": ""}


def test_names_of_the_data_sets_description_reach_the_card(tmp_path):
    names = {0: "air", 1: "liver", 2: "spleen"}
    data = opened(described(tmp_path, {"a": names, "b": names, "c": {}}), tmp_path, **CHANGES)
    assert data.names == {0: "background", 1: "liver", 2: "spleen", 3: "class_3"}
    assert data.appearance()["modality"] == ["MR"] and "units" not in data.appearance()
    brightness = data.appearance()["intensity"]["t1"]
    assert brightness["mean"] == pytest.approx(50, rel=0.05) and brightness["low"] < 50 < brightness["high"]
    ours = opened(data.store, tmp_path, **{**CHANGES, "data.organs": ("liver",)})
    assert ours.names == {0: "background", 1: "liver"}  # what a recipe names comes first


def test_a_name_given_twice_is_told_apart_and_one_that_differs_between_subjects_is_refused(tmp_path):
    twice = described(tmp_path / "twice", {"a": {1: "kidney", 2: "kidney"}})
    assert list(opened(twice, tmp_path, **CHANGES).names.values()) == [
        "background", "kidney_1", "kidney_2", "class_3",
    ]  # fmt: skip
    mixed = described(tmp_path / "mixed", {"a": {1: "liver"}, "b": {1: "spleen"}})
    with pytest.raises(ConfigError, match="id 1 of 'auto' is 'liver' in a and 'spleen' in b"):
        opened(mixed, tmp_path, **CHANGES)
    assert (
        opened(mixed, tmp_path, **{**CHANGES, "data.organs": ("liver",)}).num_classes == 2
    )  # the recipe says
    spelt = described(tmp_path / "spelt", {"a": {0: "air", 1: "Liver"}, "b": {0: "Clear Label", 1: "liver "}})
    assert opened(spelt, tmp_path, **CHANGES).names[1] == "Liver"


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"label": "expert"}, "config.label: s0: no label set 'expert'"),
        ({"data.val_label": "expert"}, "config.data.val_label: s5: no label set 'expert'"),
        ({"data.organs": ("livre",)}, "config.data.organs: 'livre' is not a structure"),
        ({"data.names": "btvc"}, "config.data.names: 'btvc' is unknown; choose from"),
        ({"data.names": "btcv"}, "config.model.out_channels is 10, but btcv has 14 classes"),
    ],
)
def test_what_there_is_not_is_refused_by_field(store, tmp_path, changes, named):
    with pytest.raises(ConfigError, match=named):
        opened(store, tmp_path, **changes)


@pytest.mark.parametrize(
    "ids, named", [((), "'auto' has no class to learn.*mask_value=VALUE"), ((100,), "'auto' has one id, 100")]
)
def test_labels_that_hold_no_class_or_one_odd_id_are_asked_about(store, tmp_path, monkeypatch, ids, named):
    monkeypatch.setattr(Store, "present", lambda self, subject, name: ids)
    with pytest.raises(ConfigError, match=named):
        opened(store, tmp_path, **{"model.out_channels": 0})


def test_a_class_that_only_validation_holds_is_told(store, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Store, "present", lambda self, subject, name: (1, 2, 9) if subject == "s5" else (1, 2)
    )
    with pytest.warns(UserWarning, match=r"only validation has \[9\]; no training subject does"):
        opened(store, tmp_path)


def test_the_regions_that_a_data_set_defines_are_learnt(tmp_path):
    regions = Regions(("whole", "core"), ((1, 2), (2,)), (1, 2), {})
    said = Description(
        label_names={"auto": {0: "background", 1: "rim", 2: "core"}}, regions={"auto": regions}
    )
    label = np.resize(np.arange(3, dtype=np.uint8), (8, 8, 8))
    with StoreWriter(str(tmp_path / "store")) as writer:
        for subject, split in (("a", "train"), ("b", "val")):
            image = label[..., None].astype(np.int16)
            writer.write(
                subject, image, np.eye(4), {"auto": label}, source="x", split=split, description=said
            )
    data = opened(Store.open(tmp_path / "store"), tmp_path, regions="dataset", **{"model.out_channels": 0})
    assert data.num_classes == 2 and data.regions is not None and data.regions.values == ((1, 2), (2,))
    assert data.names == {0: "background", 1: "rim", 2: "core"}


def test_grades_choose_labels_and_weigh_them(store, tmp_path):
    found = [("s1", 5, Grade(0.5)), ("s1", 7, Grade(0.25, flagged=True)), ("s2", 9, Grade(0.0, flagged=True))]
    others = [(subject, 5, Grade(1.0)) for subject in ("s0", "s3", "s4")]
    path = tmp_path / "sentinel.jsonl"
    files.write_jsonl(path, grades.rows([*found, *others]))
    given = {"data.flagged": "ignore", "data.grades": str(path)}
    flagged = opened(store, tmp_path, **given, **{"data.flagged_by": "sentinel"})
    assert flagged.flagged == {"s1": {7}, "s2": {9}} and flagged.weights == {}
    config = recipe(store, **given, **{"data.flagged_by": "weighted", "data.batch_size": 5})
    data = TrainingData.open(config, str(tmp_path))
    assert data.flagged == {"s2": {9}} and data.weights["s1"] == {5: 0.5, 7: 0.25}
    assert len({d.fingerprint() for d in (data, flagged, opened(store, tmp_path))}) == 3
    stream = data.batches(config, 0)
    batch = next(stream)
    stream.close()
    row = batch["weights"][batch["subject"].tolist().index(1)]
    assert batch["weights"].shape == (5, 10) and row[[0, 5, 7, 9]].tolist() == [1, 0.5, 0.25, 1]
    files.write_jsonl(path, grades.rows(found))
    with pytest.raises(FileError, match="3 subjects of label set 'auto' have no grades, such as s0"):
        opened(store, tmp_path, **given, **{"data.flagged_by": "weighted"})
