"""Who imports whom, read from the sources, imports inside functions among them.

python docs/imports.py          the layers: each module imports only from the layers below it
python docs/imports.py --dot    the same for Graphviz: python docs/imports.py --dot | dot -Tsvg > imports.svg
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "regard"
PUBLIC = "regard"
"""What stands for the public names, as `import regard as rg` brings them."""

Graph = dict[str, set[str]]


def modules(source: Path = SOURCE) -> dict[str, str]:
    """{module: its text}, named without the package; a package is its __init__."""
    files = {path.relative_to(source).with_suffix(""): path for path in sorted(source.rglob("*.py"))}
    return {".".join(name.parts).removesuffix(".__init__"): path.read_text() for name, path in files.items()}


def imported_by(text: str, known: Mapping[str, str]) -> set[str]:
    """The modules that a text imports of ours; PUBLIC where it imports the package or a public name from it."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.removeprefix(PUBLIC).removeprefix(".") for name in names if name.split(".")[0] == PUBLIC]
    return {_module(name, known) for name in ours}


def _module(name: str, known: Mapping[str, str]) -> str:
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or PUBLIC


def graph(sources: Mapping[str, str]) -> Graph:
    """{module: what it imports of ours}."""
    return {module: imported_by(text, sources) - {module} for module, text in sources.items() if module != "__init__"}


def circles(imports: Graph) -> list[set[str]]:
    """The sets of modules of which each imports every other, over whatever way.

    >>> circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    True
    """
    reached = {module: _reached(module, imports) for module in imports}
    mutual = [frozenset(each for each in reached[module] if module in reached[each]) for module in imports]
    return [set(each) for each in dict.fromkeys(mutual) if each]


def _reached(module: str, imports: Graph) -> set[str]:
    """All that a module imports, and what that imports, and so on."""
    found: set[str] = set()
    waiting = list(imports[module])
    while waiting:
        if (each := waiting.pop()) in imports and each not in found:
            found.add(each)
            waiting += imports[each]
    return found


def layers(imports: Graph) -> Iterator[list[str]]:
    """The modules that import nothing of ours, then those that import only these, and so on; a circle is the last."""
    below = {PUBLIC}
    left = dict(imports)
    while left:
        layer = [module for module, targets in left.items() if targets <= below] or list(left)
        yield sorted(layer)
        below |= set(layer)
        left = {module: targets for module, targets in left.items() if module not in below}


def by_folder(imports: Graph, depth: int = 1) -> Graph:
    """The graph between folders: app.report for app.report.figures at a depth of two.

    >>> by_folder({"scores": {"kernels.registry"}, "kernels.dot.cpu": {"scores", "kernels.registry"}})
    {'scores': {'kernels'}, 'kernels': {'scores'}}
    """
    short = lambda name: ".".join(name.split(".")[:depth])  # noqa: E731
    found: Graph = {}
    for module, targets in imports.items():
        found.setdefault(short(module), set()).update(map(short, targets))
    return {module: targets - {module} for module, targets in found.items()}


def picture(imports: Graph) -> str:
    """The layers as text, the lowest first: each module, and after it what it imports."""
    lines = []
    for number, layer in enumerate(layers(imports)):
        lines += [f"{number}", *(f"  {module:36}{' '.join(sorted(imports[module]))}".rstrip() for module in layer)]
    return "\n".join(lines)


def dot(imports: Graph) -> str:
    """The graph between folders, two deep, in the language of Graphviz."""
    lines = [f'  "{module}" -> "{target}"' for module, targets in imports.items() for target in sorted(targets)]
    return "\n".join(["digraph regard {", "  rankdir=BT", *lines, "}"])


if __name__ == "__main__":
    found = graph(modules())
    print(dot(by_folder(found, depth=2)) if "--dot" in sys.argv[1:] else picture(found))
