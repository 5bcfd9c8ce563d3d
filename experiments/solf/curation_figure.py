"""What `curation.py` found, as a figure and as a table."""

from matplotlib.figure import Figure

from ukbob_jax.evaluation import figures

# Dice on BTCV that UKBOB (2024) reports for ε percent; its text gives one value for 4 to 5.
PAPER = {0: 0.792, 1: 0.884, 2: 0.892, 3: 0.766, 5: 0.745}
UNKNOWN = "_unknown"


def draw(rows: list[dict]) -> bytes:
    """A PNG: Dice of every arm at each level, and the change over ε beside the one the paper reports."""
    levels = list(dict.fromkeys(row["level"] for row in rows if row["level"]))
    true = [row["dice"] for row in rows if not row["level"] and row["arm"] == "all"]  # no label spoilt
    figure = Figure(figsize=(4.4 * (len(levels) + 1), 3.8), layout="constrained")
    panels = figure.subplots(1, len(levels) + 1, squeeze=False)[0]
    for axes, level in zip(panels, levels):
        dice_of_arms(axes, [row for row in rows if row["level"] == level])
        axes.set_title(f"{level:.0%} of the organs spoilt", fontsize=10)
        for dice in true:
            axes.axhline(dice, color="C2", linewidth=1, linestyle=":", label="true labels")
        axes.legend(frameon=False, fontsize=8)
    last = panels[-1]
    last.plot(list(PAPER), [value - PAPER[0] for value in PAPER.values()], "k--", label="reported, BTCV")
    for level in levels:
        curve = [(0.0, 0.0, 0.0)]
        curve += [(epsilon(row), row["gain"], row["gain_error"] or 0) for row in rows if on_curve(row, level)]
        x, y, error = zip(*sorted(curve))
        last.errorbar(x, y, error, marker="o", markersize=4, capsize=3, label=f"here, {level:.0%} spoilt")
    last.axhline(0, color="0.8", linewidth=1, zorder=0)
    last.set(xlabel="ε, percent at either end", ylabel="Dice less that without a filter")
    last.legend(frameon=False, fontsize=8)
    return figures.render(figure)


def dice_of_arms(axes, rows: list[dict]) -> None:
    """Mean and standard error of every arm, from the labels as they are to the best."""
    names = [row["arm"] for row in rows if not row["arm"].endswith(UNKNOWN)]
    for shift, suffix, color, label in (
        (0, "", "C0", "ignored"),
        (0.2, UNKNOWN, "C1", "ignored, and unknown elsewhere"),
    ):
        own = {
            row["arm"].removesuffix(UNKNOWN): row
            for row in rows
            if row["arm"] in {name + suffix for name in names}
        }
        if not own:
            continue
        at = [names.index(name) + shift for name in own]
        dice, error = [row["dice"] for row in own.values()], [row["error"] or 0 for row in own.values()]
        axes.errorbar(at, dice, error, fmt="o", markersize=4, capsize=3, color=color, label=label)
    base = next((row["dice"] for row in rows if row["arm"] == "all"), None)
    if base is not None:
        axes.axhline(base, color="0.8", linewidth=1, zorder=0)
    axes.set_xticks(range(len(names)), [words(name) for name in names], rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("Dice on clean bodies")


def markdown(rows: list[dict]) -> str:
    """A table per level; means over seeds ± standard error."""
    lines = []
    for level in dict.fromkeys(row["level"] for row in rows):
        own = [row for row in rows if row["level"] == level]
        wrong = own[0]["wrong"] / own[0]["labels"]
        lines += [f"\n{level:.0%} of the organs spoilt ({wrong:.0%} of the labels learnt are wrong)\n"]
        lines += [
            "| labels | left out | of these wrong | Dice | against all | of the oracle's | p | seeds |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in own:
            right = f"{row['ignored_wrong'] / row['ignored']:.0%}" if row["ignored"] else ""
            gain = "" if row["gain"] is None else plus_minus(row["gain"], row["gain_error"], "+.3f")
            p = "" if row["p"] is None else f"{row['p']:.2f}"
            lines += [
                f"| {words(row['arm'])} | {row['ignored'] / row['labels']:.1%} | {right} | "
                f"{plus_minus(row['dice'], row['error'], '.3f')} | {gain} | {share(row, own)} | {p} | {row['seeds']} |"
            ]
    return "\n".join(lines)


def share(row: dict, rows: list[dict]) -> str:
    """Which part of the oracle's gain an arm has, both with unknown background or both without."""
    oracle = "oracle" + (UNKNOWN if row["arm"].endswith(UNKNOWN) else "")
    best = next((r["gain"] for r in rows if r["arm"] == oracle), None)
    return f"{row['gain'] / best:.0%}" if best and row["gain"] is not None and row["arm"] != oracle else ""


def plus_minus(value: float, error: float | None, form: str) -> str:
    return f"{value:{form}}" + (f" ± {error:.3f}" if error is not None else "")


def words(arm: str) -> str:
    """solf_2_unknown -> ε = 2, unknown."""
    name = arm.removesuffix(UNKNOWN)
    name = f"ε = {name.removeprefix('solf_')}" if name.startswith("solf_") else name
    name = f"grade < 0.{name.removeprefix('sentinel_')}" if name.startswith("sentinel_") else name
    return name + (", unknown" if arm.endswith(UNKNOWN) else "")


def on_curve(row: dict, level: float) -> bool:
    return (
        row["level"] == level
        and row["arm"].startswith("solf_")
        and not row["arm"].endswith(UNKNOWN)
        and row["gain"] is not None
    )


def epsilon(row: dict) -> float:
    return float(row["arm"].removeprefix("solf_"))
