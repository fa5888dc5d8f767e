"""The pages of the site that are generated or executed."""

import re
import runpy
from pathlib import Path
from typing import Any

import matplotlib
import pytest

import regard

ROOT = Path(__file__).parent.parent
PAGES = runpy.run_path(str(ROOT / "docs" / "site_pages.py"))
TUTORIALS = [page for page in sorted((ROOT / "docs" / "tutorials").glob("*.md")) if page.name != "index.md"]


def cells(page: Path) -> list[str]:
    """The code of a notebook, without its options."""
    return re.findall(r"^```\{code-cell\}\n(?::[^\n]*\n)*(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.unchecked
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    found = cells(page)
    assert len(found) > 2
    for cell in found:
        exec(compile(cell, page.name, "exec"), names)
    matplotlib.pyplot.close("all")


@pytest.mark.unchecked
@pytest.mark.parametrize("row", PAGES["rows"](), ids=lambda row: row.name)
def test_a_mechanism_has_its_page(row: Any):
    page = PAGES["page"](row)
    assert page.startswith(f"# {row.name}\n") and "<svg" in page and row.bibtex in page
    costs = PAGES["table_of_costs"]() | PAGES["READ_COSTS"]
    for _, name in PAGES["parts"](row):
        assert name in costs, f"{name} has no line in the tables of mechanisms.md"


def test_a_part_without_an_equation_is_found():
    row = regard.named.find("additive")
    equations = PAGES["EQUATIONS"]
    kept = equations.pop("Additive")
    try:
        with pytest.raises(KeyError, match="Additive"):
            PAGES["page"](row)
    finally:
        equations["Additive"] = kept


def test_every_public_name_is_on_a_page():
    listed = [name for names in PAGES["public"]().values() for name in names]
    modules = {name for name in regard.__all__ if (ROOT / "src" / "regard" / f"{name}.py").exists()}
    modules |= {name for name in regard.__all__ if (ROOT / "src" / "regard" / name / "__init__.py").exists()}
    assert sorted(listed) == sorted(set(regard.__all__) - (modules - set(listed)))


def test_what_means_something_to_sphinx_is_escaped():
    lines = ["Of (*B, Q) and `*B`, |x| and log_z_.", "", ">>> f(*a)"]
    PAGES["as_restructured_text"](None, "function", "regard.none", None, None, lines)
    assert lines == [r"Of (\*B, Q) and `*B`, \|x\| and log_z\_.", "", ">>> f(*a)"]
