"""Public data sets: under which terms they come, and what is known to be wrong with them, dated and with who says so.

A living list. An entry says what a person must know before training or testing on the data; the terms are what the
makers stated when the entry was written, and their own words count. Sources warn of issues when they list their subjects,
and a store's card repeats them.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

KINDS = ("wrong labels", "wrong images", "leakage", "shortcut", "skew", "tools", "licence")
WRITTEN = "2026-11-28"  # when terms and issues were last looked at


@dataclasses.dataclass(frozen=True)
class Issue:
    """One thing that is known.

    Attributes:
        kind: one of `KINDS`.
        text: what, and in which subjects, in a clause.
        date: when it was reported, YYYY-MM-DD or a year; "": not known.
        source: who says so.
    """

    kind: str
    text: str
    date: str
    source: str

    def __str__(self) -> str:
        """One clause with its date and source."""
        return f"{self.kind}: {self.text} ({', '.join(filter(None, (self.date, self.source)))})"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        title: its name.
        modality: of the scans.
        anatomy: what is in view.
        labels: what is labelled, and by whom.
        licence: as its makers state it.
        access: how to get it.
        issues: known ones.
    """

    title: str
    modality: str
    anatomy: str
    labels: str
    licence: str
    access: str
    issues: tuple[Issue, ...] = ()


_TOTAL = "github.com/wasserth/TotalSegmentator/issues/"

DATASETS: dict[str, DataSet] = {
    "uk_biobank_dixon": DataSet(
        title="UK Biobank, neck-to-knee Dixon MRI (field 20201)",
        modality="MR",
        anatomy="neck to knees",
        labels="none",
        licence="material transfer agreement of each approved project; nothing may be passed on",
        access="application to UK Biobank",
        issues=(
            Issue("wrong images", "fat and water are exchanged in at least one station of about 1.8 % of scans",
                  "", "recoh pipeline, 38,971 scans"),
            Issue("wrong images", "a knee is missing in about 3.3 % and a shoulder in 0.8 % of scans",
                  "", "recoh pipeline, 38,971 scans"),
            Issue("wrong images", "the manifest inside an archive has unreliable headers; series may be there twice",
                  "", "recoh pipeline"),
            Issue("skew", "volunteers of 40 to 69 years at recruitment, healthier and less deprived than the population",
                  "2017", "Fry et al., Am J Epidemiol 186"),
        ),
    ),
    "ukbob_labels": DataSet(
        title="UKBOB's organ labels",
        modality="MR",
        anatomy="neck to knees",
        labels="72 structures by a network, filtered by shape",
        licence="returned to UK Biobank; terms of UK Biobank",
        access="application to UK Biobank",
        issues=(
            Issue("wrong labels", "labels come from a network: they share its errors, and scores against them reward these",
                  "2025", "UKBOB, ICCV 2025"),
            Issue("wrong labels", "the released filter turns rejected organs into background, which teaches that they are "
                  "absent; its volume windows reject normal hearts and empty bladders", "2025", "UKBOB's released code"),
            Issue("tools", "the ablation over the share that is cut off cannot follow from the data lost", "2025",
                  "arithmetic on the paper's table"),
        ),
    ),
    "openmind": DataSet(
        title="OpenMind",
        modality="MR, PT",
        anatomy="head and neck",
        labels="masks of anatomy and of what was anonymised",
        licence="CC BY 4.0; studies of OpenNeuro have terms of their own",
        access="open",
        issues=(
            Issue("wrong images", "faces are blurred, removed or replaced: nothing is to be learnt inside the mask of "
                  "anonymisation", "2024", "OpenMind paper"),
            Issue("tools", "nnssl exchanges the two masks where both are there and stores -1 outside the content",
                  "", "nnssl 7044864, read and run"),
        ),
    ),
    "totalsegmentator_ct": DataSet(
        title="TotalSegmentator, CT",
        modality="CT",
        anatomy="whole body, parts of it",
        labels="117 structures (v2), by a network in rounds of correction",
        licence="CC BY 4.0",
        access="open",
        issues=(
            Issue("wrong labels", "hearts in the abdomen in s0143, s0201 and s1196", "2024-04-25", _TOTAL + "299"),
            Issue("wrong labels", "vertebrae mixed up inside a good outline in 10 to 15 % of about 100 scans looked at: "
                  "s0071, s0128, s0350, s0513, s0603, s0676, s0941", "2024-11-25", _TOTAL + "394"),
            Issue("wrong labels", "lung lobes or humerus wrong in s0092, s0513 and s0605; mended in later releases",
                  "2023-12-11", _TOTAL + "245"),
            Issue("wrong images", "intensities changed in s0184, s0224, s0830 and s0864 of the first release of v2",
                  "2023-10-12", _TOTAL + "193"),
            Issue("skew", "labels of men and of younger people are better", "2024", "Quality Sentinel, arXiv 2406.00327"),
        ),
    ),
    "totalsegmentator_mr": DataSet(
        title="TotalSegmentator, MR",
        modality="MR",
        anatomy="whole body, parts of it",
        labels="50 structures, by a network in rounds of correction",
        licence="see the record of the release that is used",
        access="open",
    ),
    "amos": DataSet(
        title="AMOS22",
        modality="CT, MR",
        anatomy="abdomen",
        labels="15 organs, by networks corrected by hand",
        licence="CC BY 4.0 in its Zenodo record (7262581)",
        access="open",
        issues=(
            Issue("licence", "the paper's page names a non-commercial licence, the Zenodo record does not: ask the authors",
                  "2022", "openreview.net/forum?id=Vk4-HUnkEak"),
        ),
    ),
    "btcv": DataSet(
        title="BTCV, Beyond the Cranial Vault",
        modality="CT",
        anatomy="abdomen",
        labels="13 organs, by hand",
        licence="terms of its Synapse project (syn3193805)",
        access="registration at Synapse",
    ),
    "brats": DataSet(
        title="BraTS",
        modality="MR",
        anatomy="brain",
        labels="three parts of a tumour, by hand",
        licence="terms of each year's challenge",
        access="registration",
        issues=(
            Issue("leakage", "years share patients under other names, and the Decathlon's Task01 is BraTS 2016 and 2017: do "
                  "not train on one and test on another", "2019", "Simpson et al., arXiv 1902.09063"),
            Issue("wrong images", "subject 355 of 2020 has a label map of another name", "2020", "the files"),
        ),
    ),
    "msd": DataSet(
        title="Medical Segmentation Decathlon",
        modality="CT, MR",
        anatomy="ten tasks",
        labels="by hand",
        licence="CC BY-SA 4.0",
        access="open",
    ),
    "msd_brain": DataSet(
        title="Medical Segmentation Decathlon, Task01 brain tumour",
        modality="MR",
        anatomy="brain",
        labels="three parts of a tumour, by hand",
        licence="CC BY-SA 4.0",
        access="open",
        issues=(
            Issue("leakage", "its scans are BraTS 2016 and 2017 under other names: do not train on one and test on the "
                  "other", "2019", "Simpson et al., arXiv 1902.09063"),
        ),
    ),
    "sa_med2d_20m": DataSet(
        title="SA-Med2D-20M",
        modality="ten",
        anatomy="slices of many data sets",
        labels="219 classes, from the labels of those data sets",
        licence="CC BY-NC-SA 4.0; each data set inside has terms of its own",
        access="open",
        issues=(
            Issue("wrong labels", "a class of ACDC repeats the union of two others", "2023", "the files"),
            Issue("wrong labels", "masks of one set of fundus photographs are inverted", "2023", "the files"),
            Issue("wrong images", "some images and masks differ in size; some images are masks themselves", "2023",
                  "github.com/OpenGVLab/SAM-Med2D/issues/63"),
            Issue("leakage", "slices of one scan are separate items: split by case", "2023", "its names of files"),
        ),
    ),
}  # fmt: skip

_TASK = re.compile(r"Task(\d{2})_\w+")  # folder of a task of the Decathlon


def of_source(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of the data sets that a source's settings name; what they do not name is not guessed from voxels.

    Args:
        settings: `config.source`: `kind`, and for files `layout`, `label_map` and `paths`.
    """
    kind, layout, label_map = (str(settings.get(name) or "") for name in ("kind", "layout", "label_map"))
    if kind == "ukb":
        return ("uk_biobank_dixon",)
    if kind == "openmind":
        return ("openmind",)
    if kind != "files":
        return ()
    if label_map in DATASETS:
        return (label_map,)
    if layout in DATASETS:
        return (layout,)
    if layout == "organ_masks":
        return ("totalsegmentator_ct",)
    for path in (settings.get("paths") or {}).values():
        for part in pathlib.PurePath(str(path)).parts if isinstance(path, str) else ():
            if found := _TASK.fullmatch(part):
                return ("msd_brain",) if found[1] == "01" else ("msd",)
    return ()


def told(keys: Iterable[str]) -> list[str]:
    """Return a line for each data set that has known issues."""
    lines = []
    for key in keys:
        found = DATASETS[key]
        if found.issues:
            each = "; ".join(
                f"{issue.kind}: {issue.text} ({issue.date}, {issue.source})" for issue in found.issues
            )
            lines.append(f"known issues of {found.title}: {each}.")
    return lines
