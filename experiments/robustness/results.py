"""Tables and the figure of the robustness sweep, from its rows."""

import json
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ukbob_jax import files
from ukbob_jax.evaluation import figures, statistics

Rows = list[dict[str, Any]]
CLEAN = "none"  # the scan as it is: adaptation must not spoil it
FIELDS = ("network", "phase", "corruption", "severity", "subject", "way")


def key(row: dict[str, Any]) -> tuple:
    """What a row is about."""
    return tuple(row[name] for name in FIELDS)


def line(row: dict[str, Any]) -> str:
    """A row as a line of rows.jsonl."""
    return json.dumps(row) + "\n"


def changes(rows: Rows, network: str, phase: str, way: str) -> dict[tuple, float]:
    """(corruption, severity, subject) -> Dice of `way` minus Dice of "off"."""
    dice = {key(row): row["dice"] for row in rows}
    own = [row for row in rows if (row["network"], row["phase"], row["way"]) == (network, phase, way)]
    pairs = {tuple(key(row)[2:5]): (row["dice"], dice.get((*key(row)[:5], "off"))) for row in own}
    return {scan: after - before for scan, (after, before) in pairs.items() if before is not None}


def chosen(rows: Rows, network: str, candidates: dict[str, dict]) -> dict[str, dict]:
    """Off, and of every other way the candidate with the best mean change on the validation corruptions.

    Raises:
        SystemExit: the validation phase was not run.
    """
    best = {"off": candidates["off"]}
    corrupted = [row for row in rows if row["corruption"] != CLEAN]  # the clean scan is in the test phase too
    for way in dict.fromkeys(c["way"] for c in candidates.values() if c["way"] != "off"):
        means = {
            name: np.mean(list(change.values()))
            for name, settings in candidates.items()
            if settings["way"] == way and (change := changes(corrupted, network, "validation", name))
        }
        if not means:
            raise SystemExit(f"no validation rows of {way} for {network}: run --phase validation first.")
        name = max(means, key=means.get)
        best[name] = candidates[name]
    return best


def summary(rows: Rows) -> Rows:
    """Per network, phase and way: mean Dice, change against off, worst change, share of scans made worse, rejections.

    Interval and p are over bodies, each the mean of its scans: corruptions of one body are not independent.
    """
    out = []
    for network, phase, way in dict.fromkeys((r["network"], r["phase"], r["way"]) for r in rows):
        own = [r for r in rows if (r["network"], r["phase"], r["way"]) == (network, phase, way)]
        change = changes(rows, network, phase, way)
        bodies = {s: [c for scan, c in change.items() if scan[2] == s] for _, _, s in change}
        found = statistics.paired(np.zeros(len(bodies)), [np.mean(c) for c in bodies.values()])
        each = np.array(list(change.values()))
        row = {"network": network, "phase": phase, "way": way, "bodies": len(bodies), "scans": len(own)}
        row |= {"dice": float(np.mean([r["dice"] for r in own])), "change": found.mean, "low": found.low}
        row |= {"high": found.high, "p": found.p, "worst": float(each.min())}
        row |= {
            "share_worse": float((each < 0).mean()),
            "rejected": sum(r.get("accepted") is False for r in own),
        }
        out.append(row)
    return out


def table(rows: Rows, network: str, phase: str) -> str:
    """Markdown: mean Dice by corruption and severity, a column per way."""
    own = [r for r in rows if (r["network"], r["phase"]) == (network, phase)]
    ways = list(dict.fromkeys(r["way"] for r in own))
    lines = [
        "| corruption | severity | scans | " + " | ".join(ways) + " |",
        "|---|---|---|" + "---|" * len(ways),
    ]
    for corruption, severity in dict.fromkeys((r["corruption"], r["severity"]) for r in own):
        here = [r for r in own if (r["corruption"], r["severity"]) == (corruption, severity)]
        cells = [np.mean([r["dice"] for r in here if r["way"] == way] or [np.nan]) for way in ways]
        count = len({r["subject"] for r in here})
        lines.append(
            f"| {corruption} | {severity} | {count} | " + " | ".join(f"{c:.3f}" for c in cells) + " |"
        )
    return "\n".join(lines)


def write(folder: pathlib.Path, rows: Rows) -> None:
    """`table.md`, `summary.json` and `robustness.png` in `folder`."""
    parts = [
        f"## {network}, {phase} corruptions\n\n{table(rows, network, phase)}\n"
        for network, phase in dict.fromkeys((r["network"], r["phase"]) for r in rows)
    ]
    head = (
        "| network | phase | way | bodies | scans | Dice | change | 95 % | p | worst | made worse | rejected |\n"
        + "|---" * 12
        + "|"
    )
    overall = []
    for s in summary(rows):
        cells = [
            s["network"],
            s["phase"],
            s["way"],
            s["bodies"],
            s["scans"],
            f"{s['dice']:.3f}",
            f"{s['change']:+.4f}",
        ]
        cells += [f"{s['low']:+.4f} to {s['high']:+.4f}", f"{s['p']:.3f}", f"{s['worst']:+.4f}"]
        cells += [f"{s['share_worse']:.0%}", s["rejected"]]
        overall.append("| " + " | ".join(map(str, cells)) + " |")
    text = "\n".join([*parts, "## All scans\n", head, *overall, ""])
    files.write_bytes(folder / "table.md", text.encode())
    files.write_json(folder / "summary.json", summary(rows))
    if any(r["phase"] == "test" for r in rows):
        files.write_bytes(folder / "robustness.png", picture(rows))


def picture(rows: Rows) -> bytes:
    """Change of Dice against off, every scan a dot, per corruption and way; a column per network."""
    networks = list(dict.fromkeys(r["network"] for r in rows if r["phase"] == "test"))
    figure = Figure(figsize=(6.4 * len(networks), 4.2), layout="constrained")
    for axes, network in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks):
        own = [r for r in rows if (r["network"], r["phase"]) == (network, "test")]
        corruptions = list(dict.fromkeys(r["corruption"] for r in own))
        ways = [way for way in dict.fromkeys(r["way"] for r in own) if way != "off"]
        for number, way in enumerate(ways):
            change = changes(rows, network, "test", way)
            places = [corruptions.index(c) + 0.25 * (number - (len(ways) - 1) / 2) for c, _, _ in change]
            axes.scatter(
                list(change.values()), places, s=16, color=figures.SERIES[number], label=way, alpha=0.8
            )
        axes.axvline(0, color=figures.INK, linewidth=0.8)
        axes.set_yticks(range(len(corruptions)), corruptions, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("Dice minus Dice without adaptation", fontsize=9)
        axes.set_title(network, fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    return figures.render(figure)
