"""Writes what README.md says of results: its table from benchmarks/results/compare.json, its pictures from the report.

saccade compare --seeds 3 --out benchmarks/results/compare.json
python docs/readme.py                                   the table
python docs/readme.py runs/compare/glimpse/default/report.html   and the pictures, which needs Chromium
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade import table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "compare.json"
BEGIN, END = "<!-- table: python docs/readme.py -->\n", "<!-- end of table -->\n"
PICTURES = {"looks": ".looks article >> nth=0", "learning": "#learning"}


def markdown(results: Mapping[str, Any]) -> str:
    """The table of a comparison as Markdown."""
    rows, spread = results["rows"], results["error_spread"]
    columns = table.columns(rows, spread)
    lines = [["", *(row["model"] for row in rows)], ["---", *("---:" for _ in rows)]]
    for column, *cells in zip(columns, *(table.cells(row, rows) for row in rows), strict=True):
        lines.append([", ".join(filter(None, (column.name, column.unit))), *map(table.text, cells)])
    meanings = " ".join(f"*{column.name}*: {column.meaning}" for column in columns)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{meanings}\n"


def with_table(text: str, new: str) -> str:
    """The text with what stands between the two marks replaced."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return before + BEGIN + new + END + after


def photograph(report: Path) -> None:
    """Pictures of two sections of a report, as a reader sees them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(report.resolve().as_uri())
        for name, place in PICTURES.items():
            page.locator(place).screenshot(path=ROOT / "docs" / "pictures" / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), markdown(json.loads(RESULTS.read_text()))))
    for report in map(Path, sys.argv[1:]):
        photograph(report)
