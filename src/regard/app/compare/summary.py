"""The results of a comparison as a table, in the terminal and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from regard.app.report.report import Column
from regard.app.results import printed
from regard.app.text.reading import printable
from regard.recipes.base import Measure

Rows = Sequence[Mapping[str, Any]]


def measured(measures: Sequence[Measure], rows: Rows) -> list[Measure]:
    """The measures of which any row has a value.

    >>> from regard.recipes.base import ERROR, Measure
    >>> [measure.name for measure in measured([ERROR, Measure("test_bleu", 1, "BLEU", "", "")], [{"test_error": 0.05}])]
    ['test error']
    """
    return [measure for measure in measures if any(measure.key in row for row in rows)]


def columns(measures: Sequence[Measure], spread: str, noun: str) -> list[Column]:
    """The measures as columns; `spread` says what ± stands for, `noun` what an example is."""
    words = {"spread": spread, "noun": noun}
    return [Column(each.name, each.unit.format(**words), each.meaning.format(**words)) for each in measures]


def cells(measures: Sequence[Measure], row: Mapping[str, Any]) -> list[str | float | None]:
    """The cells of a row, in the units of the columns.

    >>> from regard.recipes.base import ERROR
    >>> cells([ERROR], {"test_error": 0.05, "error_spread": 0.004})
    ['5.0 ± 0.4']
    """
    return [_cell(row, measure) for measure in measures]


def _cell(row: Mapping[str, Any], measure: Measure) -> str | float | None:
    if measure.key == "test_error":
        return f"{100 * row['test_error']:.1f} ± {100 * row['error_spread']:.1f}"
    return row[measure.key] * measure.factor if measure.key in row else None


def show(measures: Sequence[Measure], rows: Rows, title: str, spread: str, noun: str) -> None:
    """Prints the table, a column for each model; `spread` says what ± stands for, `noun` what an example is."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column()
    for row in rows:
        table.add_column(Text(printable(row["model"])), justify="right")
    found = measured(measures, rows)
    lines = zip(columns(found, spread, noun), *(cells(found, row) for row in rows), strict=True)
    for column, *values in lines:
        names = ", ".join(filter(None, (column.name, column.unit))), *map(printed, values)
        table.add_row(*(Text(printable(name)) for name in names))
    lines = (Text(printable(title)), "", table, "", Text(printable(f"± {spread}")))
    Console().print(*lines, sep="\n", highlight=False)
