from ukbob_jax import anatomy
from ukbob_jax.commands import labels


def test_rows_of_both_sides_agree():
    ours = {row["id"]: row for row in labels.taxonomy_rows()}
    theirs = labels.dataset_rows("btcv")
    assert set(ours) == set(anatomy.NAMES) and len(theirs) == len(anatomy.DATASETS["btcv"])
    shared = [row for row in theirs if row["id"] and row["ours"].isdigit()]
    assert len(shared) >= 10 and all(ours[int(row["ours"])]["name"] == row["our name"] for row in shared)
    assert labels.counterpart(anatomy.to_dataset("btcv"), anatomy.IDS["heart"]) == "-"
