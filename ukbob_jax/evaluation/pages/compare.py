"""The page that puts several runs beside each other."""

from collections.abc import Mapping, Sequence

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import UkbobError
from ukbob_jax.evaluation import charts, equity, failures, montages, organs, significance, statistics
from ukbob_jax.evaluation.comparison import Comparison, Run, most_different, pairs
from ukbob_jax.evaluation.report import Picture, Section, Table
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes.nifti import read_label_names, read_volume

CORRECTED = {"holm": "Holm's p", "bh": "Benjamini-Hochberg's p"}
SHOWN = 12  # scans in the table of those that differ most
Cell = str | float | None


def sections(found: Comparison, correction: str, level: float, pictures: int) -> list[Section]:
    """Return all sections of the page.

    Args:
        found: the runs.
        correction: of many comparisons, "holm" or "bh".
        level: below which a corrected p counts as significant.
        pictures: scans that are shown, of those whose label maps all runs kept.
    """
    store = store_of(found.runs)
    made = [
        overview(found),
        matrix(found, correction, level),
        of_organs(found, correction, level),
        speed(found.runs),
    ]
    if store is not None and (groups := people(found, store)):
        made.append(groups)
    return [*made, scans(found, store, pictures)]


def store_of(runs: Sequence[Run]) -> Store | None:
    """Return the store of the first run that names one which is still there."""
    for run in runs:
        try:
            if run.about.get("store"):
                return Store.open(run.about["store"])
        except UkbobError:
            continue
    return None


def interval(low: float | None, high: float | None, sign: str = "") -> str | None:
    """Write an interval as text; None where there is none."""
    return None if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"


def overview(found: Comparison) -> Section:
    """Mean Dice of each run with its interval, and what it missed and invented."""
    cells: list[Sequence[Cell]] = []
    for run in found.runs:
        means = np.array([value for value in run.means.values() if value is not None])
        low, high = statistics.bootstrap_interval(means, np.mean)
        hd95, nsd = (statistics.mean_defined([row.get(name) for row in run.rows]) for name in ("hd95", "nsd"))
        missed = sum(row.get("volume_ml") == 0 and (row.get("true_volume_ml") or 0) > 0 for row in run.rows)
        invented = sum((row.get("volume_ml") or 0) > 0 and row.get("true_volume_ml") == 0 for row in run.rows)
        mean = float(means.mean()) if means.size else None
        penalised = failures.penalised_mean(run.rows, "hd95")
        cells.append((run.title, mean, interval(low, high), nsd, hd95, penalised, missed, invented))
    header = (
        "run",
        "mean Dice",
        "95 % interval",
        "surface Dice",
        "HD95 mm, where found",
        "HD95 mm, penalised",
    )
    caption = (
        f"Over {len(found.subjects)} scans and {len(found.organs)} organs that all runs have. Missed: organs of the truth "
        "of which nothing was labelled. Invented: labels of organs that the truth lacks; they score 0. In the penalised "
        "mean what is missed or invented counts as the diagonal of the field of view."
    )
    return Section(
        "Overview",
        " ".join(found.remarks) or "All runs were scored on the same scans, organs and true labels.",
        [Table((*header, "missed", "invented"), cells, caption)],
    )


def matrix(found: Comparison, correction: str, level: float) -> Section:
    """Every two runs beside each other, scan by scan."""
    n, titles = len(found.runs), [run.title for run in found.runs]
    change, marks = np.full((n, n), np.nan), [[""] * n for _ in range(n)]
    cells = []
    for row in pairs(found, correction):
        i, j, p = row["first"], row["second"], row["p_corrected"]
        for a, b, sign in ((j, i, 1), (i, j, -1)):
            if row["mean"] is not None:
                change[a, b] = sign * row["mean"]
                marks[a][b] = (
                    f"{sign * row['mean']:+.3f}{'*' if p is not None and p < level else ''}\n{probability(p)}"
                )
        cells.append(
            (f"{titles[j]} − {titles[i]}", row["count"], signed(row["mean"]), interval(row["low"], row["high"], "+"),
             p_cell(row["p"]), p_cell(p), row["d"], row["rank_biserial"], row["share_worse"], signed(row["worst"]))
        )  # fmt: skip
    header = (
        *(
            "pair",
            "scans",
            "difference",
            "95 % interval",
            "p",
            CORRECTED[correction],
            "Cohen's d",
            "rank-biserial",
        ),
        *("share worse", "worst scan"),
    )
    text = (
        "Differences of mean Dice, scan by scan. p is two-sided, from random flips of the differences' signs, and "
        f"corrected for {len(cells)} {'pair' if len(cells) == 1 else 'pairs'}; * marks p below {level:g}. With few scans no "
        "difference can be significant: five give a p of at least 0.0625."
    )
    about = "Mean Dice of the row minus that of the column, and the corrected p."
    picture = Picture("significance", charts.matrix(titles, change, marks), about)
    return Section("Which differences hold", text, [Table(header, cells)], [picture])


def of_organs(found: Comparison, correction: str, level: float) -> Section:
    """Dice of every organ with its interval, and each run beside the first."""
    tables = [organs.table(run.rows, run.method) for run in found.runs]
    titles = [run.title for run in found.runs]
    dots = {
        organ: {title: _triple(of[organ]["dice"]) for title, of in zip(titles, tables)}
        for organ in found.organs
    }
    dice = [(organ, *(_with_interval(of[organ]["dice"]) for of in tables)) for organ in found.organs]
    made = [Table(("organ", *titles), dice, "Mean Dice over scans (95 % bootstrap interval over scans).")]
    first = found.runs[0]
    for run in found.runs[1:]:
        rows = significance.differences(first.scores, run.scores)
        cells = [
            (organ, row["count"], signed(row["mean"]), interval(row["low"], row["high"], "+"), p_cell(row["p"]),
             p_cell(row[f"p_{correction}"], level), row["d"])
            for organ, row in rows.items()
        ]  # fmt: skip
        header = ("organ", "scans", "difference", "95 % interval", "p", CORRECTED[correction], "Cohen's d")
        caption = (
            f"{run.title} minus {first.title}, on scans where both have a Dice; p corrected for the "
            f"{sum(row['p'] is not None for row in rows.values())} organs that could be tested; * below {level:g}."
        )
        made.append(Table(header, cells, caption))
    picture = Picture(
        "organs", charts.intervals(dots, "Dice"), "Dice per organ with 95 % intervals over scans."
    )
    return Section(
        "Organs", f"The first run, {first.title}, is what the others are compared with.", made, [picture]
    )


def speed(runs: Sequence[Run]) -> Section:
    """Time and memory, where the evaluations kept them."""
    cells = []
    for run in runs:
        said, cost = run.about, run.costs
        parameters = said.get("parameters")
        cells.append(
            (run.title, said.get("architecture"), None if parameters is None else f"{parameters / 1e6:.3g}",
             cost.get("seconds_per_scan"), cost.get("timed"), _gigabytes(cost.get("estimated_bytes")),
             _gigabytes(cost.get("peak_bytes")), said.get("device"))
        )  # fmt: skip
    header = (
        *("run", "network", "parameters, M", "seconds per scan", "scans timed", "memory, estimated GB"),
        *("peak GB", "device"),
    )
    caption = (
        "Seconds are the median of wall time over scans whose prediction compiled nothing. The estimate is of the largest "
        "program; the peak is the device's, or on a CPU the whole process's with all it did before."
    )
    missing = [run.title for run in runs if not run.costs]
    text = "Of the predictions that were scored, on the machine that scored them; other load on it counts."
    if missing:
        text += f" {', '.join(missing)}: scored by a version that did not keep them, or without a prediction of this method."
    return Section("Speed and memory", text, [Table(header, cells, caption)])


def people(found: Comparison, store: Store) -> Section | None:
    """Sexes, age bands and sites beside each other, for every run; None where the store tells no groups."""
    about = {s: store.rows[s].attributes for s in found.subjects if s in store.rows}
    cells: list[Sequence[Cell]] = []
    for run in found.runs:
        for entry in equity.by_group(organs.of_subjects(run.rows, run.method), about):
            counts = ", ".join(f"{g['name']} {g['mean']:.3f} ({g['count']})" for g in entry["groups"])
            p = min(group["p"] for group in entry["groups"])
            worst = entry["worst_group"] if entry["gap"] > 1e-9 else None
            numbers = (entry[name] for name in ("overall", "scaled", "scaled_std"))
            cells.append((run.title, entry["attribute"], worst, entry["gap"], p_cell(p), *numbers, counts))
    if not cells:
        return None
    header = (
        *("run", "attribute", "worst group", "gap", "smallest p", "mean Dice", "equity-scaled"),
        *("equity-scaled, std", "groups (people)"),
    )
    caption = (
        "Dice by groups of people, differences between organs taken out. Equity-scaled: mean / (1 + sum of the groups' "
        "distances from it), or / (1 + standard deviation of the groups). p of a group against all others, Holm's."
    )
    return Section(
        "Groups of people", "Where the store knows sex, age or site.", [Table(header, cells, caption)]
    )


def scans(found: Comparison, store: Store | None, pictures: int) -> Section:
    """The scans on which the runs differ most, with pictures of those whose label maps all runs kept."""
    ranked = most_different(found)
    means = [run.means for run in found.runs]
    cells = [(subject, *(of[subject] for of in means), spread) for subject, spread in ranked[:SHOWN]]
    shown = [s for s, _ in ranked if all(run.label_map(s).is_file() for run in found.runs)]
    drawn = []
    if store is not None:
        drawn = [s for s in shown if s in store.rows][:pictures]
    kept = f"{len(shown)} of {len(ranked)} scans have label maps of all runs"
    text = "Mean Dice over organs, widest range first. "
    if drawn:
        text += f"{kept}; the {len(drawn)} of these that differ most are drawn, in the planes where most voxels differ."
    else:
        text += (
            f"{kept}, so no picture is drawn: evaluate.pictures=N in the recipe keeps those of the first N scans."
            if not shown or store is not None
            else f"{kept}, but the store that was scored is not there any more, so no picture is drawn."
        )
    made = []
    if store is not None:
        made = [
            Picture(f"scan_{number}", draw(found.runs, store, subject), caption(found.runs, subject))
            for number, subject in enumerate(drawn)
        ]
    header = ("scan", *(run.title for run in found.runs), "range")
    return Section("Scans where the runs differ most", text, [Table(header, cells)], made)


def caption(runs: Sequence[Run], subject: str) -> str:
    """Name a scan and the Dice of each run."""
    each = ", ".join(f"{run.title} {run.means[subject]:.3f}" for run in runs)
    return f"{subject}: truth, then {each}. Axial, coronal and sagittal."


def draw(runs: Sequence[Run], store: Store, subject: str) -> bytes:
    """Draw a scan under the truth and each run's labels, through the voxel around which these differ most."""
    image = np.asarray(store.read(subject, "image")[..., 0], np.float32)
    colors: dict[str, int] = {}
    maps = []
    for run in runs:
        labels = read_volume(run.label_map(subject), kind="label").array
        maps.append((run.title, _by_name(labels, read_label_names(run.label_map(subject)), colors)))
    label, label_map = runs[0].about.get("label", ""), runs[0].about.get("label_map", "")
    if f"label/{label}" in store.rows[subject].folders:
        truth = store.read(subject, f"label/{label}")
        names = (
            anatomy.DATASETS[label_map] if label_map else store.label_names(label, [subject]) or anatomy.NAMES
        )
        known = {
            i: name for i, name in names.items() if name in colors or anatomy.IDS.get(name) in colors.values()
        }
        maps.insert(0, ("truth", _by_name(truth, known, colors)))
    same = [of for of in maps if of[1].shape == image.shape]
    voxel = where_they_differ([labels for title, labels in same if title != "truth"])
    rows = [(title, image, labels) for title, labels in same]
    palette = np.resize(anatomy.COLORS, (255, 3))
    return montages.three_planes(rows, [voxel] * len(rows), store.rows[subject].spacing_mm, palette)


def where_they_differ(maps: Sequence[np.ndarray]) -> tuple[int, int, int]:
    """Return the voxel in the middle of the planes `x`, `y` and `z` in each of which most voxels differ between maps.

    Args:
        maps: label maps `x y z` of one shape.
    """
    differ = np.any([labels != maps[0] for labels in maps[1:]], axis=0)
    if not differ.any():
        x, y, z = (n // 2 for n in maps[0].shape)
        return x, y, z
    x, y, z = (int(np.argmax(differ.sum(axis=other))) for other in ((1, 2), (0, 2), (0, 1)))
    return x, y, z


def _by_name(labels: np.ndarray, names: Mapping[int, str], colors: dict[str, int]) -> np.ndarray:
    """Number labels so that a name has one number, and so one colour, in all maps: ours, or from 100 on."""
    lookup = np.zeros(256, np.uint8)
    for value, name in names.items():
        if value and value < 256:
            new = 100 + sum(number >= 100 for number in colors.values()) % 150
            lookup[value] = colors.setdefault(name, anatomy.IDS.get(name, new))
    return lookup[labels]


def probability(p: float | None) -> str:
    """Write a p value: three decimals, or that it is below a thousandth."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def p_cell(p: float | None, level: float = 0.0) -> Cell:
    """Write a p value for a table, with * below `level`."""
    if p is None:
        return None
    return ("<0.001" if p < 0.001 else f"{p:.3f}") + ("*" if p < level else "")


def signed(value: float | None) -> Cell:
    """Write a difference with its sign."""
    return None if value is None else f"{value:+.3f}"


def _triple(entry: Mapping[str, float | None]) -> tuple[float, float, float]:
    mean, low, high = (np.nan if (v := entry[name]) is None else v for name in ("mean", "low", "high"))
    return mean, low, high


def _with_interval(entry: Mapping[str, float | None]) -> Cell:
    if entry["mean"] is None:
        return None
    span = interval(entry["low"], entry["high"])
    return f"{entry['mean']:.3f}" + (f" ({span})" if span else "")


def _gigabytes(count: float | None) -> float | None:
    return None if count is None else count / 1e9
