"""The package as a whole: its public names, what importing it costs, and who imports whom."""

import ast
import json
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import ModuleType

import pytest

import regard

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "regard"
COMMAND = Path(sysconfig.get_path("scripts")) / "regard"

USE_EVERY_NAME = "import regard; [getattr(regard, name) for name in regard.__all__]"


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_every_public_name_is_what_it_says():
    for name in regard.__all__:
        assert isinstance(getattr(regard, name), ModuleType) == (name == "named"), name
    assert set(regard.__all__) <= set(dir(regard))
    assert len(set(regard.__all__)) == len(regard.__all__)


def test_no_other_module_takes_a_public_name():
    assert set(modules()) & set(regard.__all__) == {"attend", "named"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'regard' has no attribute 'atend'"):
        getattr(regard, "atend")  # noqa: B009 - as a user would, but type checkers know better


@pytest.mark.parametrize("first", ["from regard.attention import Attention", "import regard.recipes", "import regard"])
def test_attend_is_the_function_whatever_was_imported_first(first):
    kind = output_of(sys.executable, "-c", f"{first}; import regard; print(type(regard.attention).__name__)")
    assert kind == "function\n"


def packages_loaded_by(code: str) -> set[str]:
    """The packages beyond Python's own that code loads, in a new process where torch is there already."""
    script = f"""
import sys, json, torch
before = set(sys.modules)
{code}
print(json.dumps([name for name in sys.modules if name not in before]))
"""
    modules = json.loads(output_of(sys.executable, "-c", script))
    return {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names)


def test_public_names_load_few_packages():
    assert "rich" in packages_loaded_by("import rich")
    assert packages_loaded_by(USE_EVERY_NAME) <= {"regard", "torch", "numpy", "einops", "jaxtyping"}


def test_importing_regard_loads_no_other_package():
    loaded = "import regard, sys; print(*sys.modules)"
    assert "torch" not in output_of(sys.executable, "-c", loaded).split()
    assert "torch" in output_of(sys.executable, "-c", f"import torch; {loaded}").split()


def test_public_names_cost_little_time_beside_torch():
    timed = f"import time, torch; start = time.process_time(); {USE_EVERY_NAME}; print(time.process_time() - start)"
    assert any(float(output_of(sys.executable, "-c", timed)) < 0.3 for _ in range(10))


def test_help_is_quick():
    assert any(seconds(COMMAND, "--help") < 0.3 for _ in range(10))


def seconds(*command: str | Path) -> float:
    start = time.perf_counter()
    output_of(*command)
    return time.perf_counter() - start


def import_rules() -> dict[str, str]:
    """{module: what it may import}, the table in CONTRIBUTING.md."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Who may import whom")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("|")][2:]
    return {module: may for modules, may in rows for module in re.findall(r"[\w.]+", modules)}


def imported_by(source: str) -> set[str]:
    """What a source imports of regard, as the table names it: a module, or `regard` for the package."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.removeprefix("regard.") for name in names if name.split(".")[0] == "regard"]
    return {"regard" if name in regard.__all__ and name != "named" else name for name in ours}


def may_import(module: str, target: str, rules: dict[str, str]) -> bool:
    rule = next((rules[name] for name in (module, module.split(".")[0]) if name in rules), rules["others"])
    named = any(f"{target}.".startswith(f"{name}.") for name in re.findall(r"`([\w.]+)`", rule))
    return not named if "anything" in rule else named


def modules() -> dict[str, str]:
    files = {path.relative_to(SOURCE).with_suffix(""): path for path in SOURCE.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path.read_text() for name, path in files.items()}


def test_modules_import_only_what_they_may():
    rules, sources = import_rules(), modules()
    broken = [(m, t) for m, source in sources.items() for t in imported_by(source) if not may_import(m, t, rules)]
    assert broken == []
    assert {"scores", "positions.onehot", "kernels.registry", "attend"} <= set(sources)


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("scores", "from regard.over.mappings import softmax", False),
        ("scores", "import torch", True),
        ("positions.subset", "from regard.positions.base import Positions", True),
        ("positions.subset", "def f():\n    import regard.reads", False),
        ("over", "from regard import masks", True),
        ("over", "from regard import softmax", False),
        ("kernels.registry", "from regard.kernels import dot_sdpa", False),
        ("kernels.additive", "from regard.kernels.registry import Road", True),
        ("training", "from regard.recipes import glimpse", False),
        ("training", "import regard as rg", True),
        ("cli", "from regard.recipes import glimpse", True),
        ("recipes.glimpse", "from regard.app.report.report import Look", True),
    ],
)
def test_the_import_rules_tell_right_from_wrong(module, source, allowed):
    assert all(may_import(module, target, import_rules()) for target in imported_by(source)) == allowed
