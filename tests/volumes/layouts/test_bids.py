import pytest

from tests.volumes.layouts.conftest import problems, table, touch
from ukbob_jax.errors import ConfigError, EmptyError, FileError, MismatchError
from ukbob_jax.volumes import layouts


def test_bids_contrasts_are_channels_and_pipelines_are_label_sets(tmp_path):
    anat = "sub-01/ses-1/anat/sub-01_ses-1"
    touch(tmp_path, f"{anat}_acq-water_T1w.nii.gz", f"{anat}_acq-fat_T1w.nii.gz", f"{anat}_T2w.nii.gz")
    touch(tmp_path, *[f"derivatives/{p}/{anat}_dseg.nii.gz" for p in ("manual", "model")])
    found = layouts.list_cases("bids", tmp_path, contrasts=("acq-water_T1w", "acq-fat_T1w"))
    name = "sub-01_ses-1"
    assert table(found) == [
        (
            name,
            [f"{name}_acq-water_T1w.nii.gz", f"{name}_acq-fat_T1w.nii.gz"],
            {"manual": f"{name}_dseg.nii.gz", "model": f"{name}_dseg.nii.gz"},
            "",
        )
    ]


def test_bids_labels_go_to_the_run_they_name(tmp_path):
    touch(tmp_path, *[f"sub-1/anat/sub-1{run}_T1w.nii.gz" for run in ("", "_run-2")])
    touch(tmp_path, *[f"derivatives/m/sub-1/anat/sub-1{run}_dseg.nii.gz" for run in ("", "_run-2")])
    assert [(c.subject, c.labels["m"].name) for c in layouts.list_cases("bids", tmp_path)] == [
        ("sub-1", "sub-1_dseg.nii.gz"),
        ("sub-1_run-2", "sub-1_run-2_dseg.nii.gz"),
    ]


def test_bids_sessions_that_name_one_file_are_refused(tmp_path):
    touch(tmp_path, "sub-1/ses-1/anat/sub-1_T1w.nii.gz", "sub-1/ses-2/anat/sub-1_T1w.nii.gz")
    with pytest.raises(MismatchError, match=r"in more than one folder: sub-1\. Put the session"):
        layouts.list_cases("bids", tmp_path)


def test_two_files_for_one_are_the_problem_of_their_subject_alone(tmp_path):
    touch(tmp_path, *(f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in range(1, 6)))
    touch(tmp_path, *(f"derivatives/m/sub-{n}/anat/sub-{n}_dseg.nii.gz" for n in range(1, 6)))
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "derivatives/m/sub-2/anat/sub-2_desc-b_dseg.nii.gz")
    touch(tmp_path, "sub-3/ses-1/anat/sub-3_T1w.nii.gz")
    cases = layouts.list_cases("bids", tmp_path)
    found = problems(cases)
    assert [case.subject for case in cases if not case.problem] == ["sub-4", "sub-5"]
    assert found["sub-1"].endswith("for sub-1: sub-1_T1w.nii and sub-1_T1w.nii.gz; keep one.")
    assert "two files for m of one image, or more: sub-2_d" in found["sub-2"]
    assert "in more than one folder: sub-3. Put the session" in found["sub-3"]


def test_a_bids_folder_that_does_not_match_is_refused(tmp_path):
    with pytest.raises(FileError, match="no such folder"):
        layouts.list_cases("bids", tmp_path / "none")
    with pytest.raises(FileError, match="ends in T1w"):
        layouts.list_cases("bids", tmp_path)
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz")
    with pytest.raises(MismatchError, match="not all of T1w, T2w for sub-1"):
        layouts.list_cases("bids", tmp_path, contrasts=("T1w", "T2w"))
    touch(tmp_path, *[f"derivatives/m/sub-1/anat/sub-1{s}_dseg.nii.gz" for s in ("", "_desc-b")])
    with pytest.raises(MismatchError, match="two files for m"):
        layouts.list_cases("bids", tmp_path)


def fmriprep(root):
    """Two people with what fMRIPrep leaves beside one T1w."""
    for key in ("sub-1", "sub-2"):
        touch(root, f"{key}/anat/{key}_T1w.nii.gz")
        for middle in ("", "_desc-aseg", "_desc-aparcaseg", "_space-MNI152NLin2009cAsym_res-2"):
            touch(root, f"derivatives/fmriprep/{key}/anat/{key}{middle}_dseg.nii.gz")
    tables = {"desc-aseg_dseg.tsv": "index\tname\tcolor\n0\tUnknown\t#000000\n2\tLeft WM\t#ffffff\n"}
    tables["sub-2/anat/sub-2_desc-aseg_dseg.tsv"] = "name\tindex\nnearer\t2\n"
    for name, text in tables.items():
        (root / "derivatives" / "fmriprep" / name).write_text(text)
    return root


def labels(root, **selectors) -> list[str]:
    return [
        path.name for case in layouts.list_cases("bids", root, **selectors) for path in case.labels.values()
    ]


def test_several_label_maps_of_one_image_are_listed_with_what_would_choose(tmp_path):
    fmriprep(tmp_path)
    with pytest.raises(MismatchError, match=r"desc-aseg_dseg.*\. Choose with desc=") as caught:
        labels(tmp_path)
    assert "MNI" not in str(caught.value) and "aparcaseg or aseg or none." in str(caught.value)
    assert labels(tmp_path, desc="aseg") == ["sub-1_desc-aseg_dseg.nii.gz", "sub-2_desc-aseg_dseg.nii.gz"]
    with pytest.warns(UserWarning, match="2 label maps in another space .* sub-1_space-MNI"):
        assert labels(tmp_path, desc="none") == ["sub-1_dseg.nii.gz", "sub-2_dseg.nii.gz"]
    assert labels(tmp_path, space="MNI152NLin2009cAsym", res="2")[0].startswith("sub-1_space-MNI")
    with pytest.raises(FileError, match=r"no image has a \*_dseg with desc=asge"):
        labels(tmp_path, desc="asge")
    with pytest.raises(FileError, match="no folder 'spm'; there is fmriprep"):
        labels(tmp_path, pipeline="spm")


def test_names_come_from_the_nearest_table_that_applies(tmp_path):
    found = layouts.list_cases("bids", fmriprep(tmp_path), desc="aseg")
    names = [case.description.label_names["fmriprep"] for case in found]
    assert names == [{0: "Unknown", 2: "Left WM"}, {2: "nearer"}]
    assert layouts.list_cases("bids", tmp_path, desc="aparcaseg")[0].description.label_names == {}
    (tmp_path / "derivatives" / "fmriprep" / "desc-aseg_dseg.tsv").write_text("id,name\n")
    (tmp_path / "derivatives" / "fmriprep" / "sub-2" / "anat" / "sub-2_desc-aseg_dseg.tsv").write_text(
        "index\tname\n1\n"
    )
    with pytest.warns(UserWarning, match=r"aseg_dseg\.tsv: expected a table .* It is left out"):
        assert layouts.list_cases("bids", tmp_path, desc="aseg")[1].description.label_names == {}


def test_sidecars_say_modality_and_units_by_inheritance(tmp_path):
    touch(tmp_path, *[f"sub-{n}/anat/sub-{n}_acq-a_T1w.nii.gz" for n in (1, 2)])
    (tmp_path / "T1w.json").write_text('{"Modality": "MR", "Units": "arbitrary", "PatientName": "X"}')
    (tmp_path / "acq-b_T1w.json").write_text('{"Modality": "PT"}')
    (tmp_path / "sub-2" / "anat" / "sub-2_acq-a_T1w.json").write_text('{"Modality": "CT", "Units": "s"}')
    found = [case.description for case in layouts.list_cases("bids", tmp_path)]
    assert [(said.modality, said.units) for said in found] == [("MR", "arbitrary"), ("CT", "")]
    assert "X" not in str(found)


def test_label_maps_beside_the_images_and_in_their_space_are_taken(tmp_path):
    for space in ("", "_space-MNI"):
        touch(tmp_path, *[f"sub-1/anat/sub-1{space}_desc-{end}.nii.gz" for end in ("preproc_T1w", "b_dseg")])
    found = {
        case.subject: case for case in layouts.list_cases("bids", tmp_path, contrasts="desc-preproc_T1w")
    }
    assert found["sub-1"].labels["manual"].name == "sub-1_desc-b_dseg.nii.gz"
    assert found["sub-1_space-MNI"].labels["manual"].name == "sub-1_space-MNI_desc-b_dseg.nii.gz"


def test_session_run_suffix_and_label_choose(tmp_path):
    for key in (
        "sub-1/ses-a/anat/sub-1_ses-a_run-1",
        "sub-1/ses-a/anat/sub-1_ses-a_run-2",
        "sub-1/ses-b/anat/sub-1_ses-b",
    ):
        touch(
            tmp_path,
            f"{key}_T2w.nii.gz",
            *[f"derivatives/m/{key}_T2w_label-{n}_mask.nii.gz" for n in ("SC", "GM")],
        )
    of_t2 = {"contrasts": "T2w", "suffix": "mask", "label": "GM"}
    assert labels(tmp_path, **of_t2, session="a", run="2") == ["sub-1_ses-a_run-2_T2w_label-GM_mask.nii.gz"]
    assert labels(tmp_path, **of_t2, run="none") == ["sub-1_ses-b_T2w_label-GM_mask.nii.gz"]
    assert len(labels(tmp_path, **of_t2)) == 3
    with pytest.raises(FileError, match="of the session and run asked for"):
        labels(tmp_path, **of_t2, session="c")


def test_a_label_map_that_may_be_of_several_images_is_left_out(tmp_path):
    touch(
        tmp_path,
        *[f"sub-1/anat/sub-1_run-{n}_T1w.nii.gz" for n in (1, 2)],
        "derivatives/m/sub-1/anat/sub-1_dseg.nii.gz",
    )
    with pytest.warns(
        UserWarning, match="1 label maps could belong to several images and are left out: sub-1_dseg"
    ):
        assert labels(tmp_path) == []
    (tmp_path / "sub-1" / "anat" / "sub-1_run-2_T1w.nii.gz").unlink()
    assert labels(tmp_path) == ["sub-1_dseg.nii.gz"]


def test_every_image_of_any_datatype_is_a_subject_of_its_own(tmp_path):
    touch(
        tmp_path,
        *[f"sub-1/ses-a/{name}.nii.gz" for name in ("anat/sub-1_ses-a_T1w", "anat/sub-1_ses-a_run-2_UNIT1")],
        "sub-1/ses-a/beh/sub-1_ses-a_odd.nii.gz", "sub-2/swi/sub-2_part-mag_GRE.nii.gz",
        "sub-2/anat/sub-2_T1w_seg_brain.nii.gz", "sub-2/anat/sub-2_desc-x_dseg.nii.gz",
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"1 files are not named as BIDS asks: sub-2_T1w_seg_brain"):
        found = layouts.list_cases("bids", tmp_path, contrasts="*")
    assert [(case.subject, case.person, case.description.attributes["modality"]) for case in found] == [
        ("sub-1_ses-a_T1w", "sub-1", "T1w"), ("sub-1_ses-a_run-2_UNIT1", "sub-1", "UNIT1"),
        ("sub-1_ses-a_odd", "sub-1", "odd"), ("sub-2_part-mag_GRE", "sub-2", "GRE"),
    ]  # fmt: skip
    some = layouts.list_cases("bids", tmp_path, contrasts="*", datatype="swi,beh")
    assert [case.subject for case in some] == ["sub-1_ses-a_odd", "sub-2_part-mag_GRE"]
    assert [c.subject for c in layouts.list_cases("bids", tmp_path, contrasts="GRE")] == ["sub-2_part-mag"]
    with pytest.raises(FileError, match="no image of the datatype"):
        layouts.list_cases("bids", tmp_path, contrasts="*", datatype="pet")


def test_images_of_a_derivative_and_its_own_label_maps(tmp_path):
    fmriprep(tmp_path)
    for key in ("sub-1", "sub-2"):
        for middle in ("", "_space-MNI152NLin2009cAsym_res-2"):
            touch(tmp_path, f"derivatives/fmriprep/{key}/anat/{key}{middle}_desc-preproc_T1w.nii.gz")
    chosen = {"derivative": "fmriprep", "contrasts": "desc-preproc_T1w", "desc": "aseg"}
    found = layouts.list_cases("bids", tmp_path, **chosen)
    assert [(c.subject, c.images[0].name, c.labels["fmriprep"].name) for c in found] == [
        (key, f"{key}_desc-preproc_T1w.nii.gz", f"{key}_desc-aseg_dseg.nii.gz") for key in ("sub-1", "sub-2")
    ]
    mni = {**chosen, "contrasts": "space-MNI152NLin2009cAsym_res-2_desc-preproc_T1w", "desc": "none"}
    with pytest.warns(UserWarning, match=r"2 label maps in another space .* sub-1_dseg\.nii\.gz"):
        [one, _] = layouts.list_cases("bids", tmp_path, **mni)
    assert one.labels["fmriprep"].name == "sub-1_space-MNI152NLin2009cAsym_res-2_dseg.nii.gz"
    with pytest.raises(FileError, match="no folder 'spm'; there is fmriprep"):
        layouts.list_cases("bids", tmp_path, derivative="spm")


def test_gradients_are_those_that_apply_by_inheritance(tmp_path):
    touch(tmp_path, *[f"sub-{n}/dwi/sub-{n}_dwi.nii.gz" for n in (1, 2, 3)])
    touch(tmp_path, "dwi.bval", "dwi.bvec", "sub-2/dwi/sub-2_dwi.bvec", "sub-1/anat/sub-1_T1w.nii.gz")
    (tmp_path / "acq-x_dwi.bval").touch()  # of other images
    found = layouts.list_cases("bids", tmp_path, contrasts="dwi")
    nearest = [[path.relative_to(tmp_path).as_posix() for path in case.gradients] for case in found]
    assert nearest == [
        ["dwi.bval", "dwi.bvec"],
        ["dwi.bval", "sub-2/dwi/sub-2_dwi.bvec"],
        ["dwi.bval", "dwi.bvec"],
    ]
    assert layouts.list_cases("bids", tmp_path)[0].gradients == ()
    (tmp_path / "dwi.bval").unlink()
    assert layouts.list_cases("bids", tmp_path, contrasts="dwi")[0].gradients == ()


def test_participants_say_who_somebody_is(tmp_path):
    touch(tmp_path, *[f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in range(1, 5)])
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tAge\tsex\thandedness\tweight\tbirth\n"
        "sub-1\t34.5\tfemale\tright\t60\t1990-01-01\nsub-2\t89+\tM\tn/a\tnan\t\nsub-3\t7\tx\n"
    )
    said = [case.description.attributes for case in layouts.list_cases("bids", tmp_path)]
    first = {"age_years": 34.5, "weight_kg": 60.0, "sex": "F", "handedness": "R"}
    assert said == [first, {"sex": "M"}, {"age_years": 7.0}, {}]
    (tmp_path / "participants.json").write_text('{"age": {"Units": "months"}, "weight": {"Units": "kg"}}')
    assert "age_years" not in layouts.list_cases("bids", tmp_path)[0].description.attributes
    (tmp_path / "participants.tsv").write_text("id,age\n")
    with pytest.warns(UserWarning, match=r"participants\.tsv: no column participant_id.* It is left out"):
        assert layouts.list_cases("bids", tmp_path)[0].description.attributes == {}


def test_masks_become_label_sets_by_name(tmp_path):
    touch(tmp_path, *[f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in (1, 2)])
    for middle in ("_desc-brain", "_space-MNI152NLin2009cAsym_desc-brain", "_desc-other"):
        touch(tmp_path, f"derivatives/fmriprep/sub-1/anat/sub-1{middle}_mask.nii.gz")
    touch(tmp_path, "derivatives/deface/sub-2/anat/sub-2_T1w_defacemask.nii.gz")
    chosen = {"anatomy": "desc-brain_mask", "anonymisation": "defacemask"}
    with pytest.warns(UserWarning, match=r"mask/anatomy: 1 label maps in another space .* sub-1_space-MNI"):
        one, two = layouts.list_cases("bids", tmp_path, **chosen)
    assert {name: path.name for name, path in one.labels.items()} == {
        "mask/anatomy": "sub-1_desc-brain_mask.nii.gz"
    }
    assert {name: path.name for name, path in two.labels.items()} == {
        "mask/anonymisation": "sub-2_T1w_defacemask.nii.gz"
    }
    with pytest.raises(
        FileError, match=r"no image has a mask \*_desc-skull_mask\. Choose others with anatomy"
    ):
        layouts.list_cases("bids", tmp_path, anatomy="desc-skull_mask")


def test_conditions_choose_images_by_what_the_data_set_says(tmp_path):
    """By person, by image, by sidecar and by name; what is not known fulfils no condition but its own."""
    touch(
        tmp_path,
        *[f"sub-{n}/ses-a/anat/sub-{n}_ses-a_{c}.nii.gz" for n in range(1, 5) for c in ("T1w", "T2w")],
    )
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsex\tbirth\nsub-1\t30\tF\t1990\nsub-2\t70\tf\t1950\nsub-3\t89+\tF\tn/a\nsub-4\t31\tM\t1989\n"
    )
    for n, score in ((1, "1.5"), (2, "n/a")):
        (tmp_path / f"sub-{n}/ses-a/sub-{n}_ses-a_scans.tsv").write_text(
            f"filename\tquality\nanat/sub-{n}_ses-a_T1w.nii.gz\t{score}\nanat/sub-{n}_ses-a_T2w.nii.gz\t3.5\n"
        )
    (tmp_path / "T2w.json").write_text('{"Manufacturer": "GE", "EchoTime": 0.1, "ImageType": ["ORIGINAL"]}')

    def found(where):
        cases = layouts.list_cases("bids", tmp_path, contrasts="*", where=where)
        return [case.subject[4] + case.subject[-3:] for case in cases]

    assert len(found("")) == 8
    assert found("sex=f; suffix=T1w") == ["1T1w", "2T1w", "3T1w"]
    assert found("age=:60;suffix=t1w") == ["1T1w", "4T1w"] and found("birth=;suffix=T1w") == ["3T1w"]
    assert found("quality=:2.5") == ["1T1w"] and found("quality=3.5") == ["1T2w", "2T2w"]
    assert found("manufacturer=Siemens,ge;sub=02,3") == ["2T2w", "3T2w"] and len(found("datatype=anat")) == 8
    case, *_ = layouts.list_cases("bids", tmp_path, contrasts="*", where="sex=M")
    assert case.person == "sub-4" and "birth" not in case.description.attributes
    with pytest.raises(ConfigError, match=r"where: 'colour=red': .* with a name of age, .*, suffix"):
        found("sex=F;colour=red")
    with pytest.raises(EmptyError, match="none of 8 images passes where=age=100:"):
        found("age=100:")
