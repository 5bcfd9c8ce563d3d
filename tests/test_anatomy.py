import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError

BOTH_WAYS = [(way, name) for name in anatomy.DATASETS for way in (anatomy.to_dataset, anatomy.from_dataset)]


def test_ids_follow_the_published_table():
    for i, name in {
        1: "spleen",
        2: "kidney_right",
        3: "kidney_left",
        5: "liver",
        13: "lung_middle_lobe_right",
        21: "urinary_bladder",
        28: "subclavian_artery_right",
        32: "brachiocephalic_vein_left",
        42: "humerus_left",
        52: "spinal_cord",
        62: "iliopsoas_right",
        68: "IVD",
        72: "bone_other",
    }.items():
        assert anatomy.NAMES[i] == name and anatomy.IDS[name] == i
    assert len(anatomy.NAMES) == len(anatomy.IDS) == anatomy.NUM_CLASSES


def test_groups_hold_every_used_id_once():
    grouped = sorted(i for ids in anatomy.GROUPS.values() for i in ids)
    assert grouped == [i for i in range(1, 73) if i != anatomy.UNUSED]


def test_the_seventeen_pairs_are_left_and_right_of_one_name():
    assert len(anatomy.PAIRS) == 17
    for low, high in anatomy.PAIRS:
        sides = {anatomy.NAMES[low].rsplit("_", 1)[1], anatomy.NAMES[high].rsplit("_", 1)[1]}
        assert sides == {"left", "right"}
        assert anatomy.NAMES[low].rsplit("_", 1)[0] == anatomy.NAMES[high].rsplit("_", 1)[0]


def test_mirroring_twice_gives_the_label_back_and_keeps_ignore():
    assert np.array_equal(anatomy.MIRROR[anatomy.MIRROR], np.arange(256))
    assert anatomy.MIRROR[anatomy.IGNORE] == anatomy.IGNORE
    assert np.sum(np.arange(256) != anatomy.MIRROR) == 34


def test_one_sided_structures_are_in_no_pair():
    paired = {i for pair in anatomy.PAIRS for i in pair}
    assert not paired & set(anatomy.ONE_SIDED)


def test_colours_are_all_different():
    assert anatomy.COLORS.shape == (73, 3) and anatomy.COLORS.dtype == np.uint8
    assert len(np.unique(anatomy.COLORS, axis=0)) == 73


def test_class_counts_of_the_other_label_sets():
    counts = {name: len(classes) - 1 for name, classes in anatomy.DATASETS.items()}
    assert counts == {
        "btcv": 13, "amos": 15, "totalsegmentator_ct": 117, "totalsegmentator_mr": 50, "vibesegmentator_ct": 72,
    }  # fmt: skip


def test_ribs_in_ct_of_vibesegmentator_are_other_bone_and_the_rest_is_ours():
    lut = anatomy.from_dataset("vibesegmentator_ct").lut
    assert lut[:73].tolist() == [i if i != anatomy.UNUSED else anatomy.IDS["bone_other"] for i in range(73)]
    assert anatomy.to_dataset("vibesegmentator_ct").ambiguous == ()


@pytest.mark.parametrize(
    "dataset, i, name",
    [
        ("btcv", 2, "kidney_right"),
        ("btcv", 9, "inferior_vena_cava"),
        ("btcv", 13, "adrenal_gland_left"),
        ("amos", 10, "pancreas"),
        ("amos", 13, "duodenum"),
        ("totalsegmentator_ct", 27, "vertebrae_L5"),
        ("totalsegmentator_ct", 52, "aorta"),
        ("totalsegmentator_ct", 79, "spinal_cord"),
        ("totalsegmentator_ct", 89, "iliopsoas_right"),
        ("totalsegmentator_ct", 92, "rib_left_1"),
        ("totalsegmentator_ct", 116, "sternum"),
        ("totalsegmentator_mr", 12, "esophagus"),
        ("totalsegmentator_mr", 20, "intervertebral_discs"),
        ("totalsegmentator_mr", 36, "femur_left"),
        ("totalsegmentator_mr", 49, "iliopsoas_right"),
        ("totalsegmentator_mr", 50, "brain"),
    ],
)
def test_ids_of_the_other_label_sets(dataset, i, name):
    assert anatomy.DATASETS[dataset][i] == name


@pytest.mark.parametrize("way, dataset", BOTH_WAYS)
def test_no_source_id_is_silently_lost(way, dataset):
    source = anatomy.NAMES if way is anatomy.to_dataset else anatomy.DATASETS[dataset]
    m = way(dataset)
    listed = sorted([*m.mapped, *m.ambiguous, *m.unmapped])
    assert listed == [i for i in source if i and source[i] != "unused"]
    for i in listed:
        expected = m.mapped.get(i, anatomy.IGNORE if i in m.ambiguous else 0)
        assert m.lut[i] == expected
    assert m.lut[0] == 0 and m.lut[anatomy.IGNORE] == anatomy.IGNORE


@pytest.mark.parametrize("way, dataset", BOTH_WAYS)
def test_target_ids_are_reached_or_listed(way, dataset):
    target = anatomy.NAMES if way is anatomy.from_dataset else anatomy.DATASETS[dataset]
    m = way(dataset)
    assert sorted({*m.mapped.values(), *m.unreached}) == [i for i in target if i and target[i] != "unused"]
    for t, sources in m.merged.items():
        assert len(sources) > 1 and all(m.lut[s] == t for s in sources)


@pytest.mark.parametrize("way, dataset", BOTH_WAYS)
def test_a_map_never_changes_side(way, dataset):
    m = way(dataset)
    there, here = (anatomy.DATASETS[dataset], anatomy.NAMES)
    if way is anatomy.from_dataset:
        there, here = here, there
    for s, t in m.mapped.items():
        for side, other in (("left", "right"), ("right", "left")):
            assert not (side in here[s].split("_") and other in there[t].split("_"))


def test_lungs_merge_and_vertebrae_stay_open():
    m = anatomy.to_dataset("totalsegmentator_mr")
    assert m.merged == {10: (10, 11), 11: (12, 13, 14), 19: (69, 70)}
    back = anatomy.from_dataset("totalsegmentator_mr")
    assert set(back.ambiguous) == {10, 11, 19} and back.lut[10] == anatomy.IGNORE
    assert anatomy.from_dataset("totalsegmentator_ct").merged[anatomy.IDS["sacrum"]] == (25, 26)


def test_btcv_round_trip_is_the_identity():
    there, back = anatomy.to_dataset("btcv"), anatomy.from_dataset("btcv")
    ids = np.array(list(there.mapped))
    assert len(ids) == 13 and np.array_equal(back.lut[there.lut[ids]], ids)


def test_womens_uterus_is_not_read_as_prostate():
    assert anatomy.to_dataset("amos").lut[anatomy.IDS["prostate"]] == 15
    assert anatomy.from_dataset("amos").lut[15] == anatomy.IGNORE


@pytest.mark.parametrize("dataset", anatomy.DATASETS)
def test_common_classes_account_for_both_sides(dataset):
    c = anatomy.common_classes(dataset)
    for table, names, left_out in (
        (c.ours, {i: n for i, n in anatomy.NAMES.items() if n != "unused"}, c.left_out_ours),
        (c.theirs, anatomy.DATASETS[dataset], c.left_out_theirs),
    ):
        assert sorted([*left_out, *(i for i in names if i and table[i])]) == [i for i in names if i]
        assert set(table[list(names)]) - {0} == set(range(1, len(c.names)))
    assert len(set(c.names)) == len(c.names)


def test_vertebrae_compare_as_a_whole():
    c = anatomy.common_classes("totalsegmentator_ct")
    k = c.names.index("vertebrae")
    assert c.ours[anatomy.IDS["vertebra_body"]] == c.ours[anatomy.IDS["vertebra_posterior_elements"]] == k
    assert np.all(c.theirs[27:51] == k)


def test_unknown_label_set_names_the_choices():
    with pytest.raises(ConfigError, match="btcv, amos"):
        anatomy.to_dataset("flare")


@pytest.mark.reference
@pytest.mark.parametrize("name, dataset", [("ct", "totalsegmentator_ct"), ("mr", "totalsegmentator_mr")])
def test_real_label_maps_keep_their_sides(reference, name, dataset):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.as_closest_canonical(nibabel.load(reference / "volumes" / f"ts_{name}_sm_seg.nii.gz"))
    label = anatomy.from_dataset(dataset).lut[np.asarray(image.dataobj)]  # x y z, RAS
    x = {organ: np.argwhere(label == anatomy.IDS[organ])[:, 0].mean() for organ in ("liver", "spleen")}
    assert x["liver"] > x["spleen"]
    for low, high in anatomy.PAIRS:
        where = {anatomy.NAMES[i].rsplit("_", 1)[1]: np.argwhere(label == i)[:, 0] for i in (low, high)}
        if where["left"].size and where["right"].size:
            assert where["right"].mean() > where["left"].mean()


def test_names_of_a_smaller_network_map_onto_its_classes():
    lookup = anatomy.to_names({0: "background", 1: "liver", 2: "muscle"})
    assert lookup[anatomy.IDS["liver"]] == 1 and lookup[anatomy.IDS["muscle"]] == 2
    assert lookup[anatomy.IGNORE] == anatomy.IGNORE
    assert np.count_nonzero(lookup[: anatomy.NUM_CLASSES]) == 2
    full = anatomy.to_names(anatomy.NAMES)
    assert (full[: anatomy.NUM_CLASSES] == np.arange(anatomy.NUM_CLASSES)).all()
