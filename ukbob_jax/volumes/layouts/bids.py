"""BIDS: sub-01[/ses-1]/anat/sub-01_ses-1_T1w.nii.gz, label maps as *_dseg under derivatives/PIPELINE/.

Label maps may also lie beside the images, as in a data set of derivatives. Where an image has several, entities choose.
"""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence

from ukbob_jax.errors import EmptyError, FileError, MismatchError
from ukbob_jax.volumes.bids_files import UNITS, Name, Sidecars, parse
from ukbob_jax.volumes.bids_images import (
    EVERY,
    NONE,
    File,
    Image,
    derived,
    each_file,
    facts,
    list_files,
    of_contrasts,
    selected,
)
from ukbob_jax.volumes.case import (
    ANATOMY,
    ANONYMISATION,
    LABEL_SET,
    MODALITIES,
    Case,
    Description,
    listed,
    selector,
)
from ukbob_jax.volumes.conditions import parse as parse_condition

OF_LABELS = ("desc", "space", "res", "seg", "label")  # entities that choose among the label maps of an image
DERIVED = {*OF_LABELS, "den", "hemi", "atlas", "from", "to", "mode"}  # entities that a derivative adds
NATIVE = ("", "orig")  # `space` of a label map that lies on its image, as does the image's own suffix


def list_cases(
    root: str | os.PathLike,
    *,
    contrasts: str | Sequence[str] = ("T1w",),
    datatype: str = "",
    derivative: str = "",
    suffix: str = "dseg",
    pipeline: str = "",
    session: str = "",
    run: str = "",
    desc: str = "",
    space: str = "",
    res: str = "",
    seg: str = "",
    label: str = "",
    anatomy: str = "",
    anonymisation: str = "",
    where: str = "",
) -> list[Case]:
    """One case per subject, session and run that has all contrasts; label sets are named after their pipeline.

    Names of ids come from the `_dseg.tsv` that applies, modality and units from JSON sidecars. A label map in another
    space than its image is left out with a warning. An image that lacks a contrast, has two files for one, or several
    label maps where most have one, has a problem.

    Args:
        root: the dataset's folder.
        contrasts: ends of the image names in channel order, such as ("acq-water_T1w", "acq-fat_T1w") or
            "acq-water_T1w,acq-fat_T1w". "*": every image that is no label map is a subject of its own, called by its whole
            name, and its suffix is its attribute "modality".
        datatype: take images from folders of this name only, such as "anat", or "anat,dwi"; "": from all.
        derivative: folder below `derivatives` whose images are taken in place of the scans themselves, such as
            "fmriprep" with contrasts="desc-preproc_T1w"; those in another space only where the contrast names it.
        suffix: last part of the names of label maps, such as "dseg" or "mask".
        pipeline: folder below `derivatives` whose label maps are taken; "": of every one.
        session: take the images of this session only; "none": those without a session.
        run: likewise.
        desc: take label maps with this entity only; "none": without it. "": any, if one is left.
        space: likewise; "": on the image itself.
        res, seg, label: as `desc`.
        anatomy: end of the names of masks of tissue, such as "desc-brain_mask", in any pipeline or beside the images; they
            become label set "mask/anatomy". "": none.
        anonymisation: likewise of what was altered, "mask/anonymisation".
        where: conditions on what the data set says of an image (`bids_images.facts`), separated by ";", which must all hold,
            such as "sex=F; age=18:65; suffix=T1w,T2w"; see `conditions.parse`. "": none.
    Raises:
        FileError: no such folder.
        ConfigError: a condition that means nothing, or a name that the data set does not know.
        EmptyError: no image of these contrasts, session and run, none that passes `where`, or no label map with the entities
            asked for.
        MismatchError: nobody has all contrasts, or several label maps remain for most images.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise FileError(f"{root}: no such folder.")
    wanted = {"ses": session, "run": run}
    contrasts = contrasts.split(",") if isinstance(contrasts, str) else contrasts
    present = list_files(root)
    candidates = derived(root, derivative, contrasts) if derivative else present
    kinds = {kind for kind in datatype.split(",") if kind}
    candidates = [f for f in candidates if not kinds or f.folder.rsplit("/", 1)[-1] in kinds]
    candidates = [file for file in candidates if selected(file.name, wanted)]
    if list(contrasts) == [EVERY]:
        contrasts, images = [EVERY], each_file(root, candidates)
    else:
        images = of_contrasts(root, candidates, contrasts)
    chosen = {"desc": desc, "space": space, "res": res, "seg": seg, "label": label}
    labels: list[dict[str, pathlib.Path]] = [{} for _ in images]
    for set_name, files in _label_sets(root, present, suffix, pipeline).items():
        found = _owned(root, set_name, files, images)
        for n, path in enumerate(_choose(root, set_name, found, images, chosen)):
            if path:
                labels[n][set_name] = path
    if any(chosen.values()) and not any(labels):
        asked = ", ".join(f"{key}={value}" for key, value in chosen.items() if value)
        raise EmptyError(
            f"{root}: no image has a *_{suffix} with {asked}. Choose others with {selector('desc')}."
        )
    for set_name, end in ((ANATOMY, anatomy), (ANONYMISATION, anonymisation)):
        for n, path in enumerate(_masks(root, present, set_name, end, images) if end else ()):
            if path:
                labels[n][set_name] = path
    sidecars = Sidecars(root)
    beside = Sidecars(root / "derivatives" / derivative) if derivative else sidecars
    cases = [_case(image, labels[n], contrasts, sidecars, beside) for n, image in enumerate(images)]
    if not where:
        return cases
    return [case for case, passes in zip(cases, _passing(root, images, where, sidecars, beside)) if passes]


def _passing(
    root: pathlib.Path, images: list[Image], where: str, sidecars: Sidecars, beside: Sidecars
) -> list[bool]:
    """Of each image whether all conditions hold.

    Raises:
        ConfigError: as `conditions.parse`.
        EmptyError: none passes.
    """
    known = [facts(image, sidecars, beside) for image in images]
    names = sorted({name for of_image in known for name in of_image})
    conditions = [
        parse_condition(text, names, selector("where")) for text in where.split(";") if text.strip()
    ]
    passing = [all(condition(of_image) for condition in conditions) for of_image in known]
    if not any(passing):
        raise EmptyError(
            f"{root}: none of {len(images)} images passes {selector('where')}={where}. Widen it."
        )
    return passing


def _label_sets(root: pathlib.Path, present: list[File], suffix: str, pipeline: str) -> dict[str, list[File]]:
    """Label maps by label set: a pipeline's folder, or those beside the images."""
    folders = sorted(path for path in root.glob("derivatives/*") if path.is_dir())
    if pipeline and pipeline not in [path.name for path in folders]:
        there = listed([path.name for path in folders]) or "nothing"
        raise FileError(f"{root}/derivatives: no folder {pipeline!r}; there is {there}.")
    sets = {path.name: list_files(path) for path in folders if pipeline in ("", path.name)}
    if not pipeline:
        sets.setdefault(LABEL_SET, []).extend(present)
    return {name: [f for f in files if f.name.suffix == suffix] for name, files in sets.items()}


def _masks(
    root: pathlib.Path, present: list[File], set_name: str, end: str, images: list[Image]
) -> list[pathlib.Path | None]:
    """Of each image its mask, whose name ends in `end`; several that are left are a problem of the image.

    Raises:
        EmptyError: no image has one.
        MismatchError: as `_choose`.
    """
    asked = parse(end)
    sets = _label_sets(root, present, asked.suffix, "").values()
    files = [f for found in sets for f in found if asked.entities.items() <= f.name.entities.items()]
    chosen = {key: asked.entities.get(key, "") for key in OF_LABELS}
    masks = _choose(root, set_name, _owned(root, set_name, files, images), images, chosen)
    if not any(masks):
        raise EmptyError(f"{root}: no image has a mask *_{end}. Choose others with {selector(set_name[5:])}.")
    return masks


def _owned(root: pathlib.Path, set_name: str, files: list[File], images: list[Image]) -> list[list[File]]:
    """Of each image the label maps that name it: with all its entities, or with fewer where no other is meant."""
    found: list[list[File]] = [[] for _ in images]
    of_folder: dict[str, list[int]] = {}
    for n, image in enumerate(images):
        of_folder.setdefault(image.folder, []).append(n)
    lost = []
    for file in files:
        own = {key: value for key, value in file.name.entities.items() if key not in DERIVED}
        owners = [n for n in of_folder.get(file.folder, []) if _names(file.name, own, images[n])]
        most = max((len(own.items() & images[n].entities.items()) for n in owners), default=0)
        owners = [n for n in owners if len(own.items() & images[n].entities.items()) == most]
        exact = [
            n for n in owners if len(_identity(images[n])) == len(own.items() & images[n].entities.items())
        ]
        owners = exact or owners
        owners = [n for n in owners if _is_native(file.name, images[n])] or owners
        if len(owners) == 1:
            found[owners[0]].append(file)
        elif owners:
            lost.append(file.path.name)
    if lost:
        warnings.warn(
            f"{root}: {set_name}: {len(lost)} label maps could belong to several images and are left out: "
            f"{listed(lost)}. Put the images' entities into their names.",
            stacklevel=4,
        )
    return found


def _identity(image: Image) -> dict[str, str]:
    return {key: value for key, value in image.entities.items() if key not in DERIVED}


def _names(name: Name, own: Mapping[str, str], image: Image) -> bool:
    """Whether a label map's own entities and words are all those of one channel of the image."""
    return any(
        own.items() <= file.name.entities.items() and {*name.words} <= {file.name.suffix}
        for file in image.files.values()
    )


def _choose(
    root: pathlib.Path,
    set_name: str,
    found: list[list[File]],
    images: list[Image],
    chosen: Mapping[str, str],
) -> list[pathlib.Path | None]:
    """Of each image its label map, or None; several that are left are a problem of the image.

    Raises:
        MismatchError: more images have several than one; the message says which entity would choose.
    """
    kept = [[file for file in files if selected(file.name, chosen)] for files in found]
    elsewhere = []
    if not chosen["space"]:
        elsewhere = [f for files, image in zip(kept, images) for f in files if not _is_native(f.name, image)]
        kept = [[f for f in files if _is_native(f.name, image)] for files, image in zip(kept, images)]
    several = [n for n, files in enumerate(kept) if len(files) > 1]
    if len(several) > sum(len(files) == 1 for files in kept):
        raise MismatchError(_several(root, set_name, kept[several[0]]))
    for n in several:
        images[n].problems.append(_several(root, set_name, kept[n]))
    if elsewhere:
        spaces = sorted({file.name.entities["space"] for file in elsewhere if "space" in file.name.entities})
        warnings.warn(
            f"{root}: {set_name}: {len(elsewhere)} label maps in another space than their image are left out: "
            f"{listed([file.path.name for file in elsewhere])} (space {listed(spaces) or 'of the scanner'}).",
            stacklevel=4,
        )
    return [files[0].path if files else None for files in kept]


def _is_native(name: Name, image: Image) -> bool:
    """Whether a label map says the same of its space as the image; `space-T1w` is that of a T1w image."""
    suffixes = {file.name.suffix for file in image.files.values()}
    of_image = {file.name.entities.get("space", "") for file in image.files.values()}
    space = name.entities.get("space", "")
    return space in of_image or (of_image <= {*NATIVE} and space in {*NATIVE, *suffixes})


def _several(root: pathlib.Path, set_name: str, files: list[File]) -> str:
    """One line: the candidates, and the selectors that would leave one."""
    fields = []
    for key in OF_LABELS:
        values = [file.name.entities.get(key, NONE) for file in files]
        if len({*values}) > 1:
            fields.append(f"{selector(key)}={' or '.join(dict.fromkeys(values))}")
    advice = f"Choose with {', '.join(fields)}" if fields else "Keep one"
    names = ", ".join(file.path.name for file in files)
    return f"{root}: two files for {set_name} of one image, or more: {names}. {advice}."


def _case(
    image: Image,
    labels: dict[str, pathlib.Path],
    contrasts: Sequence[str],
    sidecars: Sidecars,
    beside: Sidecars,
) -> Case:
    """The case of an image; `sidecars` are of the data set, `beside` of the part of it that images are from."""
    paths = tuple(image.files[contrast].path for contrast in contrasts if contrast in image.files)
    said = [beside.fields(path) for path in paths]
    names = {name: found for name, path in labels.items() if (found := sidecars.names(path))}
    description = Description(
        modality=_agreed([MODALITIES.get(str(fields.get("Modality", "")).lower(), "") for fields in said]),
        units=_agreed([UNITS.get(str(fields.get("Units", "")).lower(), "") for fields in said]),
        label_names=names,
    )
    person = f"sub-{image.entities['sub']}" if "sub" in image.entities else ""
    attributes = sidecars.person(person) if person else {}
    if EVERY in image.files:
        attributes["modality"] = image.files[EVERY].name.suffix
    description = dataclasses.replace(description, attributes=attributes)
    problems = list(image.problems)
    if len(paths) < len(contrasts):
        problems.append(f"{paths[0].parent}: not all of {', '.join(contrasts)} for {image.subject}.")
    return Case(
        image.subject,
        paths,
        labels,
        person=person,
        description=description,
        problem=" ".join(problems),
        gradients=beside.gradients(paths[0]) if len(paths) == 1 else (),
    )


def _agreed(values: list[str]) -> str:
    """What all channels say; "" where they say nothing or differ."""
    return values[0] if len({*values}) == 1 else ""
