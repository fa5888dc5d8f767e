"""Recipes by name, and flags with types: a recipe's Config dataclass as command line and as YAML."""

import argparse
import ast
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NoReturn

from regard.checks import unknown
from regard.recipes import own_recipes


class Wrong(Exception):
    """The call was wrong: the user must hear it in one sentence, and the exit status is 2."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        raise Wrong(message)


def recipes() -> dict[str, str]:
    """{name: the first sentence of its docstring} of every file in regard/recipes, without importing any.

    >>> "glimpse" in recipes()
    True
    """
    return {name: _first_sentence(file) for name, file in own_recipes().items()}


def _first_sentence(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.:])\s|\n\n", text)[0].rstrip(".:")


def recipe_of(verb: str, words: Sequence[str], default: str = "") -> tuple[str, list[str]]:
    """The name of the recipe, which comes first, and the words that are left."""
    if default and (not words or words[0].startswith("-")):
        return default, list(words)
    if words and words[0] in ("-h", "--help"):
        print(f"usage: regard {verb} RECIPE ...\n\n`regard {verb} RECIPE --help` names its options. Recipes:\n")
        print("\n".join(f"  {name}  {what}" for name, what in recipes().items()))
        print("\nor a file of your own, such as ./mine.py")
        raise SystemExit(0)
    if not words or words[0].startswith("-"):
        raise Wrong(f"expected the name of a recipe after regard {verb}: there are {', '.join(recipes())}")
    return words[0], list(words[1:])


def find_recipe(name: str) -> Any:
    """The recipe of that name, or in that file. Raises Wrong where there is none."""
    from regard.recipes.base import open_recipe

    try:
        return open_recipe(name)
    except ValueError as error:
        raise Wrong(str(error)) from None


def typed_parser(verb: str, recipe: Any, *classes: type, skip: Sequence[str] = ()) -> argparse.ArgumentParser:
    """A parser with a flag for every field of these dataclasses, typed, explained by the field's docstring.

    The config.yaml of a run may be given as --config, so the name of the recipe is an option too.
    """
    from jsonargparse import SUPPRESS, ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    name, about = recipe.source, recipe.about.split("\n\n")[0]
    parser = ArgumentParser(prog=f"regard {verb} {name}", description=about, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", metavar="FILE", help="Options from a YAML file.")
    parser.add_argument("--recipe", type=Literal[name], default=name, help=SUPPRESS)
    for each in classes:
        parser.add_class_arguments(each, skip={field for field in skip if field in _names(each)})
    return parser


def _names(dataclass: type) -> list[str]:
    return [field.name for field in fields(dataclass)]


def build(dataclass: type, options: Any) -> Any:
    """The dataclass with what was parsed for its fields. Raises Wrong for what it does not accept."""
    given = {name: getattr(options, name) for name in _names(dataclass) if hasattr(options, name)}
    try:
        return dataclass(**given)
    except (ValueError, TypeError) as error:
        raise Wrong(str(error)) from None


def check_training(config: Any, *sizes: str) -> None:
    """Raises ValueError unless what every recipe's Config has is possible: `epochs`, `batch` and these sizes at least
    one, or None, and `learning_rate` above zero.

    >>> from types import SimpleNamespace as Config
    >>> check_training(Config(epochs=3, batch=0, learning_rate=0.1))
    Traceback (most recent call last):
    ValueError: --batch expected at least 1, but got 0
    """
    at_least(1, config, *sizes, "epochs", "batch")
    above_zero(config, "learning_rate")


def at_least(least: int, config: Any, *names: str) -> None:
    """Raises ValueError unless these fields are so much, or None.

    >>> from types import SimpleNamespace as Config
    >>> at_least(1, Config(epochs=0), "epochs")
    Traceback (most recent call last):
    ValueError: --epochs expected at least 1, but got 0
    """
    _check(config, names, f"at least {least}", lambda value: value is None or value >= least)


def share(config: Any, *names: str) -> None:
    """Raises ValueError unless these fields are at least zero and less than one.

    >>> from types import SimpleNamespace as Config
    >>> share(Config(dropout=1.0), "dropout")
    Traceback (most recent call last):
    ValueError: --dropout expected a share from 0 up to 1, but got 1.0
    """
    _check(config, names, "a share from 0 up to 1", lambda value: 0 <= value < 1)


def above_zero(config: Any, *names: str) -> None:
    """Raises ValueError unless these fields are above zero and finite.

    >>> from types import SimpleNamespace as Config
    >>> above_zero(Config(learning_rate=float("nan")), "learning_rate")
    Traceback (most recent call last):
    ValueError: --learning_rate expected a number above zero, but got nan
    """
    _check(config, names, "a number above zero", lambda value: 0 < value < math.inf)


def _check(config: Any, names: Sequence[str], expected: str, suits: Callable[[Any], bool]) -> None:
    for name in names:
        if not suits(getattr(config, name)):
            raise ValueError(f"--{name} expected {expected}, but got {getattr(config, name)}")


def check_name(name: str) -> None:
    """Raises Wrong unless a name, if there is one, is that of a folder in runs/.

    >>> check_name("../evil")
    Traceback (most recent call last):
    regard.app.flags.Wrong: --name expected the name of a folder in runs/, but got '../evil'
    """
    if name and (not name.isprintable() or set(name) & set("/\\") or name.startswith(".")):
        raise Wrong(f"--name expected the name of a folder in runs/, but got {name!r}")


def part(text: str) -> tuple[int, int]:
    """What "I/N" says: the I-th of N parts. Raises ArgumentTypeError for another text.

    >>> part("2/8")
    (2, 8)
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 2/8, but got {text!r}")
    return int(found[1]), int(found[2])


def check_file(path: str) -> None:
    """Raises Wrong unless a file of options is YAML of names and values, without aliases; a file that is not there is
    the parser's matter. What stands in another file is not said.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
    ...     print("a secret", file=file, flush=True)
    ...     check_file(file.name)
    Traceback (most recent call last):
    regard.app.flags.Wrong: --config expected YAML of names and values, but /....yaml is none
    """
    import yaml

    from regard.app.training.config import parse_yaml
    from regard.app.training.errors import Failure
    from regard.app.training.files import LARGEST_TEXT

    if not Path(path).is_file():
        return
    try:
        if Path(path).stat().st_size > LARGEST_TEXT:
            raise ValueError
        fields = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, Failure, yaml.YAMLError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" from line {place.line + 1} on" if place else ""
        raise Wrong(f"--config expected YAML of names and values, without aliases, but {path} is none{where}") from None
    if not isinstance(fields, dict):
        raise Wrong(f"--config expected YAML of names and values, but {path} is none")


def add_fields(parser: argparse.ArgumentParser, dataclass: type) -> None:
    """Adds a flag for each field of a dataclass, with its type and default, explained by the field's docstring."""
    said = _docstrings(dataclass) if fields(dataclass) else {}
    for field in fields(dataclass):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, help=said.get(field.name, ""))


def _docstrings(dataclass: type) -> dict[str, str]:
    """{field: the text below it}."""
    tree: Any = ast.parse(textwrap.dedent(inspect.getsource(dataclass)))
    pairs = itertools.pairwise(tree.body[0].body)
    said = {field.target.id: text.value.value for field, text in pairs if _explains(field, text)}
    return {name: " ".join(text.split()).rstrip(".") for name, text in said.items()}


def _explains(field: ast.AST, text: ast.AST) -> bool:
    return isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)


def parse_known(parser: argparse.ArgumentParser, words: Sequence[str]) -> Any:
    """What the words say to a parser that does not know all of them."""
    return parser.parse_known_args([word for word in words if word not in ("-h", "--help")])[0]


def name_of(config: Any, fields: Sequence[str]) -> str:
    """What a run is called unless the user says so: by these fields, and its seed.

    >>> from types import SimpleNamespace as Config
    >>> name_of(Config(task=2, over="softmax", seed=3), ["task", "over"]), name_of(Config(seed=0), [])
    ('task2-softmax-seed3', 'seed0')
    """
    given = [(name, getattr(config, name)) for name in (*fields, "seed")]
    return "-".join(value if isinstance(value, str) else f"{name}{value}" for name, value in given)


def name_of_comparison(config: Any, usual: Any, quick: bool = False) -> str:
    """What a comparison is called unless the user says so: what is not as usual.

    >>> from types import SimpleNamespace as Config
    >>> name_of_comparison(Config(epochs=3, data="../mnist"), Config(epochs=8, data="embedded"), quick=True)
    'quick-epochs=3-data=mnist'
    """
    changed = [name for name, value in vars(usual).items() if getattr(config, name) != value]
    words = [f"{name}={Path(str(getattr(config, name))).name}" for name in changed]
    return "-".join(["quick", *words] if quick else words) or "default"


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> Any:
    """What the words say. Raises Wrong, with the nearest flag, for what they may not say."""
    known = list(parser._option_string_actions)
    for word, after in itertools.pairwise((*words, "")):
        if word.partition("=")[0] == "--config":
            check_file(word.partition("=")[2] or after)
    for flag in (word.split("=")[0] for word in words if word.startswith("--")):
        if flag not in known:
            raise Wrong(unknown("flag", flag, known))
    parser.exit_on_error = False
    try:
        if isinstance(parser, Parser) and words:  # words may stand before, between and behind flags
            return parser.parse_intermixed_args(list(words))
        return parser.parse_args(list(words))
    except argparse.ArgumentError as error:
        raise Wrong(_plain(str(error), known)) from None


def _plain(message: str, known: Sequence[str]) -> str:
    """A parser's message as a sentence for a user."""
    message = " ".join(message.split())
    if found := re.match(r"Option '(.+)' is not accepted", message):
        return unknown("name in the configuration file", found[1], [flag.lstrip("-") for flag in known])
    if found := re.match(r"Parser key \"(.+?)\": Expected an? (.+?)\. Got value: (.*)", message):
        wanted = re.sub(r"<class '(\w+)'>", r"\1", found[2])
        wanted = re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", wanted)
        return f"--{found[1]} expected {wanted}, but got {found[3]!r}"
    return message.removeprefix('Parser key "config": ')
