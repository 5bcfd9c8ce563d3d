"""Empty files in the layouts of datasets, and the cases found among them as a table."""

import json
import pathlib


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def dataset(root: pathlib.Path, **fields) -> pathlib.Path:
    (root / "dataset.json").write_text(json.dumps(fields))
    return root


def entry(name: str) -> dict:
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


def problems(cases: list) -> dict[str, str]:
    """Subject -> why it cannot be used, "" where it can."""
    return {case.subject: case.problem for case in cases}


def table(cases: list) -> list[tuple]:
    """Subject, image names, label names by set, split."""
    return [
        (c.subject, [p.name for p in c.images], {k: p.name for k, p in c.labels.items()}, c.split)
        for c in cases
    ]
