"""The table of automatic beside manual labels, from rows."""

import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import agreement, statistics

NAMES = {1: "liver", 2: "spleen"}


def row(subject: str, organ: int, dice: float, hd95: float | None = 1.0) -> dict:
    return {"subject": subject, "organ": organ, "dice": dice, "hd95": hd95, "nsd": dice}


def test_means_are_before_and_after_the_filter_and_lost_labels_have_no_distance():
    rows = [row("a", 1, 1.0), row("b", 1, 0.5, 3.0), row("c", 1, 0.0, None)]
    liver, spleen, mean = agreement.table(rows, {"b": [1]}, NAMES)
    assert (liver["labels"], liver["kept"], liver["lost"]) == (3, 2, 1)
    assert (liver["dice_before"], liver["dice_after"]) == (0.5, 0.5)
    assert (liver["hd95_before"], liver["hd95_after"]) == (2.0, 1.0)
    assert spleen["labels"] == 0 and spleen["dice_before"] is None
    assert mean["organ"] == "mean of organs" and mean["dice_before"] == 0.5 and mean["labels"] == 3


def test_lost_labels_count_as_the_diagonal_before_and_after_the_filter():
    rows = [row("a", 1, 1.0, 2.0), row("b", 1, 0.0, None), row("c", 1, 0.0, None)]
    diagonals = {"a": 50.0, "b": 100.0, "c": 60.0}
    liver, _, mean = agreement.table(rows, {"b": [1]}, NAMES, diagonals)
    assert (liver["lost"], liver["lost_after"], mean["lost_after"]) == (2, 1, 1)
    assert (liver["hd95_before"], liver["hd95_after"]) == (2.0, 2.0)
    assert (liver["hd95_penalised_before"], liver["hd95_penalised_after"]) == (54.0, 31.0)
    unknown = agreement.table(rows, {}, NAMES)[0]
    assert unknown["hd95_penalised_before"] is None and unknown["lost"] == 2


def test_dice_has_intervals_and_kept_labels_are_tested_beside_flagged_ones():
    good, bad = np.linspace(0.9, 0.95, 6), np.linspace(0.3, 0.5, 4)
    rows = [row(f"g{i}", organ, d) for organ in NAMES for i, d in enumerate(good)]
    rows += [row(f"b{i}", 1, d) for i, d in enumerate(bad)]
    liver, spleen, mean = agreement.table(rows, {f"b{i}": [1] for i in range(4)}, NAMES)
    assert (liver["dice_low_after"], liver["dice_high_after"]) == statistics.bootstrap_interval(good, np.mean)
    assert liver["dice_low_before"] < liver["dice_before"] < liver["dice_low_after"]
    assert liver["kept_minus_flagged"] == pytest.approx(good.mean() - bad.mean())
    assert (
        liver["p"] == liver["p_holm"] == liver["p_bh"] == 1 / 210
    )  # of 10 choose 4; the only organ with both
    assert spleen["p"] is spleen["p_holm"] is spleen["kept_minus_flagged"] is mean["p"] is None
    assert agreement.table([row("a", 1, 0.5)], {}, NAMES)[0]["dice_low_before"] is None


def test_the_text_is_aligned_and_marks_what_is_not_defined():
    lines = agreement.text(agreement.table([row("a", 1, 0.25)], {}, NAMES)).splitlines()
    assert len({len(line) for line in lines}) == 1
    numbers = [value for value in ("0.250", "1.000", "0.250", "1.000") for _ in range(2)]
    assert lines[1].split() == ["liver", "1", "1", "0", "0", *numbers]
    assert lines[2].split() == ["spleen", "0", "0", "0", "0", *["-"] * 8]
    assert lines[0].endswith("hd95 penalised before  hd95 penalised after")


def test_ignored_voxels_and_other_organs_take_no_part():
    manual = np.zeros((6, 6, 6), np.uint8)
    manual[1:3, 1:3, 1:3], manual[4:, 4:, 4:] = 1, 7
    auto = manual.copy()
    auto[4:, 4:, 4:] = 9
    manual[0] = anatomy.IGNORE
    auto[0] = 1  # wrong, where the truth does not say
    [score] = agreement.score(auto, manual, (1.0, 1.0, 1.0), [1, 2], 1.0)
    assert score == {"organ": 1, "dice": 1.0, "hd95": 0.0, "nsd": 1.0}


def test_subsets_have_ids_of_the_taxonomy_and_unknown_ones_are_refused():
    for subset in agreement.SUBSETS:
        organs = agreement.organs(subset)
        assert organs and all(anatomy.IDS[name] == i for i, name in organs.items())
    assert len(agreement.organs("abdomen")) == 11
    with pytest.raises(ConfigError, match="'legs' is not known; choose one of abdomen"):
        agreement.organs("legs")
