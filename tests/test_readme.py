"""What the pages say of results is what docs/tables.py makes of them."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = runpy.run_path(str(ROOT / "docs" / "tables.py"))


@pytest.mark.parametrize("name", SCRIPT["TABLES"])
def test_a_table_is_that_of_the_results(name: str):
    page, file, made = SCRIPT["TABLES"][name]
    text, results = (ROOT / page).read_text(), json.loads((SCRIPT["RESULTS"] / file).read_text())
    assert SCRIPT["with_table"](text, name, made(results)) == text, "run python docs/tables.py"


def test_another_result_would_be_seen():
    text, results = (ROOT / "README.md").read_text(), json.loads((SCRIPT["RESULTS"] / "compare.json").read_text())
    assert results["seeds"] == 3
    results["rows"][0]["test_error"] += 0.01
    assert SCRIPT["with_table"](text, "compare", SCRIPT["compare"](results)) != text


def test_every_picture_is_there():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page.read_text()):
            assert (page.parent / picture).is_file(), picture
