"""The registry of public data sets: its entries, whom they are told, and what a store remembers."""

import datetime
import warnings

import nibabel
import numpy as np
import pytest

from configs import common
from ukbob_jax import sources
from ukbob_jax.errors import FileError
from ukbob_jax.jobs import ingest
from ukbob_jax.sources import known_issues
from ukbob_jax.store import origins


def test_every_entry_says_its_terms_and_every_issue_who_says_so():
    written = datetime.date.fromisoformat(known_issues.WRITTEN)
    for key, found in known_issues.DATASETS.items():
        assert all((found.title, found.modality, found.anatomy, found.labels, found.licence, found.access)), (
            key
        )
        for issue in found.issues:
            assert issue.kind in known_issues.KINDS and issue.text and issue.source, key
            assert not issue.text.endswith(".") and "\n" not in issue.text
            if len(issue.date) == 10:
                assert datetime.date.fromisoformat(issue.date) <= written
            elif issue.date:
                assert 2000 < int(issue.date) <= written.year


@pytest.mark.parametrize(
    "settings, keys",
    [
        ({"kind": "ukb", "folder": "zips"}, ("uk_biobank_dixon",)),
        ({"kind": "openmind"}, ("openmind",)),
        ({"kind": "phantom"}, ()),
        ({"kind": "files", "layout": "brats"}, ("brats",)),
        ({"kind": "files", "layout": "folders", "label_map": "amos"}, ("amos",)),
        ({"kind": "files", "layout": "organ_masks"}, ("totalsegmentator_ct",)),
        ({"kind": "files", "layout": "organ_masks", "label_map": "totalsegmentator_mr"}, ("totalsegmentator_mr",)),
        ({"kind": "files", "layout": "decathlon", "paths": {"root": "/x/Task04_Hippocampus"}}, ("msd",)),
        ({"kind": "files", "layout": "decathlon", "paths": {"root": "Task01_BrainTumour/"}}, ("msd_brain",)),
        ({"kind": "files", "layout": "nnunet", "paths": {"root": "Dataset001_Mine", "contrasts": ()}}, ()),
        ({"kind": "files", "layout": "folders", "label_map": "vibesegmentator_ct"}, ()),
        ({}, ()),
    ],
)  # fmt: skip
def test_data_sets_are_known_by_what_the_recipe_says(settings, keys):
    assert known_issues.of_source(settings) == keys


def test_one_line_tells_the_issues_of_a_data_set_and_none_where_there_are_none():
    [line] = known_issues.told(["btcv", "totalsegmentator_ct"])
    assert line.startswith(
        "known issues of TotalSegmentator, CT: wrong labels: hearts in the abdomen in s0143"
    )
    assert "(2024-04-25, github.com/wasserth/TotalSegmentator/issues/299)" in line and "\n" not in line


def brats(folder):
    """One subject as BraTS has it."""
    for name in ("t1", "t1ce", "t2", "flair", "seg"):
        array = np.random.default_rng(0).integers(0, 200, (8, 7, 6)).astype(np.int16)
        array = (array > 150).astype(np.uint8) if name == "seg" else array
        path = folder / "data" / "A" / f"A_{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([-2.0, -2, 2, 1])), path)
    return {"kind": "files", "layout": "brats", "paths": {"root": str(folder / "data")}}


def test_listing_a_source_warns_and_ingesting_remembers(tmp_path):
    settings = brats(tmp_path)
    with pytest.warns(UserWarning, match="known issues of BraTS: leakage: years share patients"):
        assert len(sources.list_subjects(settings)) == 1
    config = common.base().copy_and_resolve_references()
    config.unlock()
    config.source, config.store = (
        common.files_source("brats", root=settings["paths"]["root"]),
        str(tmp_path / "store"),
    )
    config.source.label_map = ""
    with pytest.warns(UserWarning, match="known issues of BraTS"):
        ingest.run(config, str(tmp_path))
    assert origins.read(config.store) == ["brats"]
    origins.note(config.store, ["amos", "brats"])
    assert origins.read(config.store) == ["amos", "brats"]
    (tmp_path / "store" / "datasets.json").write_text("{")
    with pytest.raises(FileError, match=r"datasets.json: damaged .* Delete it and run the ingest job again"):
        origins.read(config.store)


def test_other_sources_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sources.list_subjects({"kind": "phantom", "count": 1, "shape": (16, 16, 16), "seed": 0})
