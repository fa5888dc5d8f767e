"""The results of a comparison as a table, in the terminal and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from regard.app.report.report import Column


class Measure(NamedTuple):
    """One column: where its value stands in a row of results, by what it is multiplied, and what is said of it."""

    key: str
    factor: float
    column: Column


IN_TURN = "Timed in turn with the others, on one thread."
NOISE = "Of the policy's gradient in the last epoch: its mean over a batch, by the standard error of that mean."

MEASURES = (
    Measure("test_error", 100, Column("test error", "%", "Share of the test {example}s answered wrongly, ± {spread}.")),
    Measure("test_bleu", 1, Column("BLEU", "", "Of the greedy translations of the test {example}s.")),
    Measure("test_perplexity", 1, Column("perplexity", "", "Of a subword of the test {example}s.")),
    Measure("test_pixels", 1, Column("pixels read", "", "Of the image and its pooled versions, as the sensor counts.")),
    Measure(
        "multiply_adds", 1e-6, Column("multiply-adds", "M", "Millions for each {example}, counted as they are done.")
    ),
    Measure("inference", 1, Column("answering", "{example}s/s", IN_TURN)),
    Measure("training", 1, Column("learning", "{example}s/s", IN_TURN)),
    Measure("test_on_digit", 100, Column("on the digit", "%", "Share of glimpses in its box, from the third on.")),
    Measure("test_entropy", 1, Column("entropy", "nats", "Of the weights of a glimpse, over all glimpses.")),
    Measure("train_signal_to_noise", 1, Column("signal to noise", "", NOISE)),
)


def columns(rows: Sequence[Mapping[str, Any]], spread: str, example: str = "image") -> list[Column]:
    """The columns of which any row has a value; `spread` says what ± stands for, `example` what each is.

    >>> [column.name for column in columns([{"test_error": 0.05}], "standard error")]
    ['test error']
    """
    names = {"spread": spread, "example": example}
    found = [measure.column for measure in _measured(rows)]
    return [Column(each.name, each.unit.format(**names), each.meaning.format(**names)) for each in found]


def cells(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str | float | None]:
    """The cells of a row, in the units of the columns.

    >>> row = {"test_error": 0.05, "error_spread": 0.004, "test_pixels": 864.0}
    >>> cells(row, [row])
    ['5.0 ± 0.4', 864.0]
    """
    return [_cell(row, measure) for measure in _measured(rows)]


def _measured(rows: Sequence[Mapping[str, Any]]) -> list[Measure]:
    return [measure for measure in MEASURES if any(measure.key in row for row in rows)]


def _cell(row: Mapping[str, Any], measure: Measure) -> str | float | None:
    if measure.key == "test_error":
        return f"{100 * row['test_error']:.1f} ± {100 * row['error_spread']:.1f}"
    return row[measure.key] * measure.factor if measure.key in row else None


def show(rows: Sequence[Mapping[str, Any]], title: str, spread: str, example: str = "image") -> None:
    """Prints the table, a column for each model; `spread` says what ± stands for, `example` what each is."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column()
    for row in rows:
        table.add_column(row["model"], justify="right")
    lines = zip(columns(rows, spread, example), *(cells(row, rows) for row in rows), strict=True)
    for column, *values in lines:
        table.add_row(", ".join(filter(None, (column.name, column.unit))), *map(text, values))
    Console().print(title, "", table, "", f"± {spread}", sep="\n", highlight=False)


def text(cell: str | float | None) -> str:
    """A cell as it is printed: numbers to three digits, or whole.

    >>> text(0.12345), text(1728.0), text(None)
    ('0.123', '1,728', '-')
    """
    if cell is None or isinstance(cell, str):
        return cell or "-"
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
