"""What the pages say of results is what docs/tables.py makes of them, and their Python runs."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))
SCRIPT = runpy.run_path(str(ROOT / "docs" / "tables.py"))


@pytest.mark.parametrize("name", SCRIPT["TABLES"])
def test_a_table_is_that_of_the_results(name: str):
    page, file, made = SCRIPT["TABLES"][name]
    text = (ROOT / page).read_text()
    assert SCRIPT["with_table"](text, name, made(SCRIPT["found"](file))) == text, "run python docs/tables.py"


def test_another_result_would_be_seen():
    text, results = (ROOT / "README.md").read_text(), SCRIPT["found"]("compare.json")
    assert results["seeds"] == 3
    results["rows"][0]["test_error"] += 0.01
    assert SCRIPT["with_table"](text, "compare", SCRIPT["compare"](results)) != text


def test_every_picture_is_there():
    for page in PAGES:
        for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page.read_text()):
            assert (page.parent / picture).is_file(), picture


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.unchecked
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_as_it_stands(page: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)  # where weights/ is
    names: dict[str, object] = {}
    for block in blocks(page):
        exec(block, names)  # a name that a page does not define is a NameError
    assert "rg" in names
