"""What `variance` has measured, as tables and as a figure."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from regard.app.report import drawings

HEADROOM = 0.5  # for the legend, as a share of the decades below it
RATIOS = "signal_to_noise", "signal_to_noise_for_budget"
NOTE = """\
bias: |E g - g*| / |g*|, and how much of it would be noticed; variance: E |g - E g|^2; SNR: |E g| / sqrt(variance), of \
one estimate and of as many as {budget} evaluations of the cost allow; evaluations and ms: of one for 16 images. \
enumerate_exactly is the reference. rebar evaluates the cost four times as its own control; relax a fitted network \
instead, which is not counted as the cost but in the ms. variational is a bound, not another estimate of the gradient.
exponent: the slope of log variance on log size, with the standard error of the fit, and over the last three sizes \
alone; signal: |g*|^2."""


def show(results: dict[str, Any]) -> None:
    """Prints two tables, and what their columns mean."""
    console = Console()
    console.print(_estimators(results), _growth(results), NOTE.format(budget=results["budget"]), results["machine"])


def _estimators(results: dict[str, Any]) -> Table:
    table = Table("estimator", title="variance: one gradient by every estimator")
    for column in ("says it is", "bias", "variance", "SNR", f"SNR for {results['budget']}", "evaluations", "ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in results["rows"]:
        ratios = ["" if row[key] is None else f"{row[key]:.2f}" for key in RATIOS]
        table.add_row(
            row["estimator"],
            "unbiased" if row["unbiased"] else "biased",
            f"{row['bias']:.3f} ± {row['bias_error']:.3f}",
            f"{row['variance']:.3g}",
            *ratios,
            f"{row['cost_evaluations']:g}",
            f"{row['ms']:.2f}",
        )
    return table


def _growth(results: dict[str, Any]) -> Table:
    table = Table("of", "case", title="variance: how it grows")
    for column in ("variance", "exponent", "last", "variance / signal", "exponent"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in results["growth"]:
        ratio = relative(row)
        table.add_row(
            f"{row['values'][0]} to {row['values'][-1]} {row['with']}",
            row["case"],
            f"{row['variance'][0]:.2g} to {row['variance'][-1]:.2g}",
            f"{row['exponent']:.2f} ± {row['exponent_error']:.2f}",
            f"{row['last_exponent']:.2f}",
            f"{ratio[0]:.2g} to {ratio[-1]:.2g}",
            f"{row['relative_exponent']:.2f} ± {row['relative_exponent_error']:.2f}",
        )
    return table


def relative(row: dict[str, Any]) -> list[float]:
    """The variance as a multiple of the signal, for each size."""
    return [variance / signal for variance, signal in zip(row["variance"], row["signal"], strict=True)]


def figure(results: dict[str, Any]) -> Figure:
    """Four panels: the estimators at one price, and the variance as units, draws and steps grow."""
    whole = Figure((9, 9.4), layout="constrained")
    panels = whole.subplots(2, 2)
    _bars(panels[0, 0], results)
    titles = {"units": "units that choose", "draws": "draws averaged", "steps": "steps of one choice each"}
    for axes, (kind, label) in zip(panels.flat[1:], titles.items(), strict=True):
        _lines(axes, [row for row in results["growth"] if row["with"] == kind], kind, label)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return whole


def _bars(axes: Axes, results: dict[str, Any]) -> None:
    """The signal-to-noise of each estimator for the same number of evaluations, and the bias of the biased."""
    rows = [row for row in results["rows"] if row["signal_to_noise"] is not None]
    rows.sort(key=lambda row: (not row["unbiased"], row["signal_to_noise_for_budget"]))
    colours = [drawings.COLOURS[1 if row["unbiased"] else 0][0] for row in rows]
    bars = axes.barh(
        [row["estimator"] for row in rows],
        [row["signal_to_noise_for_budget"] for row in rows],
        color=colours,
        hatch=["" if row["unbiased"] else "///" for row in rows],
        edgecolor="white",
    )
    labels = [
        f"{row['signal_to_noise_for_budget']:.2f}" + ("" if row["unbiased"] else f", bias {row['bias']:.0%}")
        for row in rows
    ]
    axes.bar_label(bars, labels, padding=3, fontsize="small")
    axes.set(title=f"{results['budget']} evaluations of the cost", xlabel="signal-to-noise ratio of the gradient")
    axes.set_xmargin(0.35)
    axes.tick_params("y", labelsize="small", length=0)


def _lines(axes: Axes, rows: list[dict[str, Any]], kind: str, label: str) -> None:
    """The variance over the signal against the size, and the exponent of each line."""
    for i, row in enumerate(rows):
        axes.loglog(
            row["values"],
            relative(row),
            marker="osD^vPX"[i % 7],
            markersize=4,
            color=drawings.COLOURS[i % len(drawings.COLOURS)][0],
            linestyle=(0, drawings.DASHES[i % len(drawings.DASHES)]),
            label=f"{row['case']}: {row['relative_exponent']:+.2f}",
        )
    sizes = sorted({value for row in rows for value in row["values"]})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(title=f"growth with {kind}", xlabel=f"number of {label}", ylabel="variance / |gradient|²")
    corner = "upper right"
    if relative(rows[0])[-1] > relative(rows[0])[0]:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** HEADROOM)
        corner = "upper left"
    axes.legend(frameon=False, fontsize="small", title="case: exponent", alignment="left", handlelength=3.2, loc=corner)
