"""Tables and the figure of the robustness sweep, from its rows."""

import json
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ukbob_jax import files
from ukbob_jax.evaluation import figures, report, statistics
from ukbob_jax.evaluation.report import Table

Rows = list[dict[str, Any]]
CLEAN = "none"  # the scan as it is: adaptation must not spoil it
DRIFTS = (0.05, 0.1, 0.2, 0.5, None)  # limits that are compared
WORSE = 0.01  # Dice that a scan must lose to be counted as clearly worse
LEAD = "Scans that went wrong, labelled without adaptation and with it. Settings were chosen on validation corruptions."
READING = (
    "Scans, in brackets of how many bodies. Change is Dice minus that of the same scan without adaptation (off). Interval "
    "and p are over bodies; made worse is a "
    f"share of scans, in brackets those that lost more than {WORSE:g}."
)
MEANS = "Mean Dice over the structures."
PHASES = ("test", "validation")
FIELDS = ("network", "phase", "corruption", "severity", "subject", "method")


def key(row: dict[str, Any]) -> tuple:
    """What a row is about."""
    return tuple(row[name] for name in FIELDS)


def line(row: dict[str, Any]) -> str:
    """A row as a line of rows.jsonl."""
    return json.dumps(row) + "\n"


def changes(rows: Rows, network: str, phase: str, method: str) -> dict[tuple, float]:
    """(corruption, severity, subject) -> Dice of `method` minus Dice of "off"."""
    dice = {key(row): row["dice"] for row in rows}
    own = [row for row in rows if (row["network"], row["phase"], row["method"]) == (network, phase, method)]
    pairs = {tuple(key(row)[2:5]): (row["dice"], dice.get((*key(row)[:5], "off"))) for row in own}
    return {scan: after - before for scan, (after, before) in pairs.items() if before is not None}


def chosen(rows: Rows, network: str, candidates: dict[str, dict]) -> dict[str, dict]:
    """Off, and of every other method the candidate with the best mean change on the validation corruptions.

    Of ETTA also the limit on drift, of `DRIFTS`.

    Raises:
        SystemExit: the validation phase was not run.
    """
    best = {"off": candidates["off"]}
    for method in dict.fromkeys(c["method"] for c in candidates.values() if c["method"] != "off"):
        found = {}
        for name, settings in candidates.items():
            if settings["method"] != method:
                continue
            for limit in DRIFTS if method == "etta" else (None,):
                change = changes(guarded(rows, limit), network, "validation", name)
                corrupted = [value for scan, value in change.items() if scan[0] != CLEAN]
                if corrupted:  # of equals the stricter limit, which is safer
                    found[name, limit] = np.mean(corrupted), -np.inf if limit is None else -limit
        if not found:
            raise SystemExit(f"no validation rows of {method} for {network}: run --phase validation first.")
        name, limit = max(found, key=found.get)
        limited = {} if limit is None else {"max_drift": limit}
        best[name + "".join(f", drift {value:g}" for value in limited.values())] = candidates[name] | limited
    return best


def guarded(rows: Rows, limit: float | None) -> Rows:
    """Rows as they were with results taken back that drifted beyond `limit`."""
    if limit is None:
        return rows
    off = {key(row)[:5]: row["dice"] for row in rows if row["method"] == "off"}
    return [
        {**row, "dice": off[key(row)[:5]]} if (row.get("drift") or 0) > limit and key(row)[:5] in off else row
        for row in rows
    ]


def summary(rows: Rows) -> Rows:
    """Per network, phase and method: mean Dice, change against off, worst change, shares of scans made worse, rejections.

    Interval and p are over bodies, each the mean of its scans: corruptions of one body are not independent.
    """
    out = []
    for network, phase, method in dict.fromkeys((r["network"], r["phase"], r["method"]) for r in rows):
        own = [r for r in rows if (r["network"], r["phase"], r["method"]) == (network, phase, method)]
        change = changes(rows, network, phase, method)
        bodies = {s: [c for scan, c in change.items() if scan[2] == s] for _, _, s in change}
        found = statistics.paired(np.zeros(len(bodies)), [np.mean(c) for c in bodies.values()])
        each = np.array(list(change.values()))
        row = {"network": network, "phase": phase, "method": method, "bodies": len(bodies), "scans": len(own)}
        row |= {"dice": float(np.mean([r["dice"] for r in own])), "change": found.mean, "low": found.low}
        row |= {"high": found.high, "p": found.p, "worst": float(each.min())}
        row |= {
            "share_worse": float((each < 0).mean()),
            "share_clearly_worse": float((each < -WORSE).mean()),
            "rejected": sum(r.get("accepted") is False for r in own),
        }
        out.append(row)
    return out


def by_corruption(rows: Rows, network: str, phase: str) -> Table:
    """Mean Dice by corruption and severity, a column per method."""
    own = [r for r in rows if (r["network"], r["phase"]) == (network, phase)]
    methods = list(dict.fromkeys(r["method"] for r in own))
    cells = []
    for corruption, severity in dict.fromkeys((r["corruption"], r["severity"]) for r in own):
        here = [r for r in own if (r["corruption"], r["severity"]) == (corruption, severity)]
        means = [
            np.mean([r["dice"] for r in here if r["method"] == method] or [np.nan]) for method in methods
        ]
        count = len({r["subject"] for r in here})
        cells.append([corruption, str(severity), str(count), *(f"{mean:.3f}" for mean in means)])
    return Table(["corruption", "severity", "scans", *methods], cells)


def overall(rows: Rows, phase: str) -> Table:
    """The summary of a phase as cells."""
    header = ["network", "method", "scans", "Dice", "change", "95 %", "p", "worst", "made worse", "refused"]
    cells = [
        [
            s["network"],
            s["method"],
            f"{s['scans']} ({s['bodies']})",
            f"{s['dice']:.3f}",
            f"{s['change']:+.4f}",
            f"{s['low']:+.3f}, {s['high']:+.3f}",
            f"{s['p']:.2f}",
            f"{s['worst']:+.3f}",
            f"{s['share_worse']:.0%} ({s['share_clearly_worse']:.0%})",
            str(s["rejected"]),
        ]
        for s in summary(rows)
        if s["phase"] == phase
    ]
    return Table(header, cells)


def markdown(table: Table) -> str:
    """A table as Markdown."""
    return "\n".join(
        "| " + " | ".join(row) + " |" for row in (table.header, ["---"] * len(table.header), *table.rows)
    )


def write(folder: pathlib.Path, rows: Rows) -> None:
    """`table.md`, `summary.json`, and the report `index.html` with `robustness.png`, in `folder`."""
    sections = []
    for phase in (phase for phase in PHASES if any(row["phase"] == phase for row in rows)):
        networks = dict.fromkeys(row["network"] for row in rows if row["phase"] == phase)
        shown = (
            [report.Picture("robustness", picture(rows), "Every dot is a scan.")] if phase == "test" else []
        )
        sections.append(report.Section(f"All {phase} scans", READING, [overall(rows, phase)], shown))
        sections += [
            report.Section(f"{name}, {phase} corruptions", MEANS, [by_corruption(rows, name, phase)])
            for name in networks
        ]
    text = "\n".join(f"## {section.title}\n\n{markdown(section.tables[0])}\n" for section in sections)
    files.write_bytes(folder / "table.md", text.encode())
    files.write_json(folder / "summary.json", summary(rows))
    report.write(folder, "Robustness", LEAD, sections)


def picture(rows: Rows) -> bytes:
    """Change of Dice against off, every scan a dot, per corruption and method; a column per network."""
    networks = list(dict.fromkeys(r["network"] for r in rows if r["phase"] == "test"))
    figure = Figure(figsize=(6.4 * len(networks), 4.2), layout="constrained")
    for axes, network in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks):
        own = [r for r in rows if (r["network"], r["phase"]) == (network, "test")]
        corruptions = list(dict.fromkeys(r["corruption"] for r in own))
        methods = [method for method in dict.fromkeys(r["method"] for r in own) if method != "off"]
        for number, method in enumerate(methods):
            change = changes(rows, network, "test", method)
            places = [corruptions.index(c) + 0.25 * (number - (len(methods) - 1) / 2) for c, _, _ in change]
            axes.scatter(
                list(change.values()), places, s=16, color=figures.SERIES[number], label=method, alpha=0.8
            )
        axes.axvline(0, color=figures.INK, linewidth=0.8)
        axes.set_yticks(range(len(corruptions)), corruptions, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("Dice minus Dice without adaptation", fontsize=9)
        axes.set_title(network, fontsize=10)
        axes.legend(
            frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(methods)
        )
    return figures.render(figure)
