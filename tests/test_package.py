"""The package as a whole: its public names, what importing it costs, and who imports whom."""

import json
import re
import resource
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import regard

ROOT = Path(__file__).parent.parent
IMPORTS = runpy.run_path(str(ROOT / "docs" / "imports.py"))
PACKAGE = ROOT / "src" / "regard"
IN_A_NEW_PROCESS = """
import json, sys, time

def packages():
    return sorted({name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))

found = {"before": packages()}
import regard
found["regard"] = packages()
start = time.process_time()
import torch
found["torch_seconds"], found["torch"] = time.process_time() - start, packages()
start = time.process_time()
values = [getattr(regard, name) for name in regard.__all__]
found["seconds"], found["names"] = time.process_time() - start, packages()
import rich
found["rich"] = packages()
print(json.dumps(found))
"""


def output_of(*command: str | Path) -> str:
    return subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True, timeout=120).stdout


def test_every_public_name_is_what_it_says():
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    for name in regard.__all__:
        assert isinstance(getattr(regard, name), ModuleType) == (name in modules), name
    assert set(regard.__all__) <= set(dir(regard))
    assert len(set(regard.__all__)) == len(regard.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'regard' has no attribute 'atend'"):
        getattr(regard, "atend")  # noqa: B009 - as a user would, but type checkers know better


def test_modules_are_there_without_being_imported():
    asked = "rg.scores.Additive is rg.Additive, rg.attention.attend is rg.attend, rg.masks.causal is rg.causal"
    assert output_of("-c", f"import regard as rg; print({asked})") == "True True True\n"


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    """The packages beyond Python's own that are there after each line of a program, and how long one line took."""
    return json.loads(output_of("-c", IN_A_NEW_PROCESS))


def test_importing_regard_loads_no_other_package(loaded):
    assert set(loaded["regard"]) - set(loaded["before"]) == {"regard"}
    assert "torch" in loaded["torch"]


def test_public_names_load_few_packages(loaded):
    assert set(loaded["names"]) - set(loaded["torch"]) <= {"numpy", "jaxtyping"}
    assert "rich" in set(loaded["rich"]) - set(loaded["names"])


def test_public_names_cost_little_time_beside_torch(loaded):
    assert loaded["seconds"] < 0.25 * loaded["torch_seconds"]


def test_help_is_quick():
    assert any(seconds("-m", "regard", "--help") < 0.3 for _ in range(10))


def seconds(*command: str) -> float:
    """Of the processor's time, so that nothing else that runs here counts."""
    start = _spent_by_children()
    output_of(*command)
    return _spent_by_children() - start


def _spent_by_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


Rules = list[tuple[list[str], str]]


def import_rules() -> Rules:
    """[(modules, what they may import)], the table in CONTRIBUTING.md."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Who may import whom")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("|")][2:]
    return [(re.findall(r"[\w.]+", modules), may.strip()) for modules, may in rows]


def line_of(module: str, rules: Rules) -> int:
    """The number of the line that speaks of a module: that of its longest name."""
    found = {name: n for n, (names, _) in enumerate(rules) for name in names if f"{module}.".startswith(f"{name}.")}
    return found[max(found, key=len)]


def may_import(module: str, target: str, rules: Rules) -> bool:
    line, rule = line_of(module, rules), rules[line_of(module, rules)][1]
    if target == IMPORTS["PUBLIC"]:
        return "public names" in rule
    other = line_of(target, rules)
    if other == line:
        return "each other" in rule
    return other < line and ("the lines above" in rule or ("public names" in rule and "." not in target))


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """{module: what it imports of ours}, without the two files that only pass everything on."""
    found = IMPORTS["graph"](IMPORTS["modules"]())
    return {module: targets for module, targets in found.items() if module != "__main__"}


def test_modules_import_only_what_they_may(graph):
    rules = import_rules()
    assert [(m, t) for m, targets in graph.items() for t in targets if not may_import(m, t, rules)] == []
    assert {"scores", "positions.onehot", "kernels.registry", "attention"} <= set(graph)


def test_no_modules_import_each_other(graph):
    assert IMPORTS["circles"](graph) == []


def test_the_rules_are_few_and_name_what_is_there(graph):
    names = [name for names, _ in import_rules() for name in names]
    assert len(import_rules()) <= 8 and len(names) == len(set(names))
    assert set(names) <= set(graph)


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("scores", "from regard.over.mappings import softmax", True),
        ("scores", "from regard.reads import mean", False),
        ("scores", "from regard.attention import attend", False),
        ("scores", "import torch", True),
        ("baselines", "from regard import protocol", False),
        ("positions.subset", "from regard.positions.base import Positions", True),
        ("positions.subset", "def f():\n    import regard.reads", False),
        ("positions.chain", "from regard.kernels.registry import road_for", True),
        ("positions.chain", "from regard.kernels.chain import cpu", False),
        ("over", "from regard import masks", True),
        ("over", "import regard as rg", False),
        ("kernels.registry", "from regard.kernels.dot import cpu_cuda", False),
        ("kernels.additive", "from regard.kernels.registry import Road", True),
        ("attention", "from regard.app import options", False),
        ("reads", "def f():\n    from regard.recipes import glimpse", False),
        ("app.training.loop", "import regard as rg", True),
        ("app.training.loop", "from regard.kernels.registry import Road", False),
        ("recipes.glimpse", "from regard.app.report.report import Look", True),
        ("recipes.glimpse", "from regard.attention import Attended", True),
    ],
)
def test_the_import_rules_tell_right_from_wrong(module, source, allowed):
    found = IMPORTS["imported_by"](source, IMPORTS["modules"]())
    assert all(may_import(module, target, import_rules()) for target in found) == allowed


def test_who_imports_whom_is_printed():
    below, above = {"a": set(), "b": {"a"}}, {"c": {"a", "b"}}
    assert IMPORTS["picture"](below | above).splitlines() == [
        "0", "  a", "1", f"  {'b':36}a", "2", f"  {'c':36}a b",
    ]  # fmt: skip
    assert '  "c" -> "b"' in IMPORTS["dot"](below | above)
    in_a_circle = IMPORTS["layers"]({"a": {"b"}, "b": {"a"}, "c": set()})
    assert list(in_a_circle) == [["c"], ["a", "b"]]


def test_a_wheel_has_every_file_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The data that it opens, too."""
    monkeypatch.chdir(ROOT)
    build = pytest.importorskip("hatchling.build", reason="needs the build tool, which `make setup` installs")
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        held = {name.removeprefix("regard/") for name in wheel.namelist() if name.startswith("regard/")}
    listed = subprocess.run(["git", "ls-files", "src/regard"], check=True, capture_output=True, text=True).stdout
    tracked = {name.removeprefix("src/regard/") for name in listed.splitlines()}
    assert {".py", ".pyi", ".typed", ".gz", ".j2", ".bib"} <= {Path(name).suffix for name in tracked}
    assert tracked <= held and not {name for name in held if name.endswith(".pyc")}
