"""config.yaml: the recipe of a run and its configuration, written once, compared ever after, and read without trust."""

import os
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from regard.app.training.errors import Failure, reason
from regard.app.training.files import LARGEST_TEXT, read, write
from regard.recipes import own_recipes
from regard.recipes.base import Recipe, is_path, open_recipe

Fields = dict[str, Any]

OF_THE_RUN = ("recipe", "from", "extended")
"""The fields of config.yaml that are not of the recipe's Config."""

KEPT = ("metrics.csv", "model.safetensors", "last.ckpt", "previous.ckpt", "learning.json", "test.json", "result.json")
"""What a run may have come to: where any of it is, config.yaml is not written over."""


def claim(run: Path, recipe: Recipe | ModuleType, config: Any, start: str | Path | None = None) -> Fields:
    """Writes config.yaml and returns its fields, unless the run has come to something: it must then be of this recipe,
    this configuration and this start, but may be asked for more epochs than before.

    Raises Failure naming the fields that differ, if there are any.
    """
    asked = {"recipe": open_recipe(recipe).source, **({"from": str(start)} if start else {}), **asdict(config)}
    asked = yaml.safe_load(_as_yaml(asked))
    if any(os.path.lexists(run / name) for name in KEPT):
        asked = _continued(run, _read_fields(run), asked)
    if not (run / "config.yaml").exists() or asked != _read_fields(run):
        write(run / "config.yaml", _as_yaml(asked).encode())
    return asked


def _continued(run: Path, found: Fields, asked: Fields) -> Fields:
    """What is asked of a run that is there, with the epochs at which it was to end before."""
    before = found.pop("extended", None)
    different = _differing(found, asked)
    if different == ["epochs"] and asked["epochs"] > found["epochs"]:
        return {**asked, "extended": [*(before or []), found["epochs"]]}
    if different:
        there = f"exists already, and with another configuration ({_in_words(different, found, asked)})"
        raise Failure(f"{run} {there}: give another name.")
    return asked if before is None else {**asked, "extended": before}


def _differing(found: Fields, asked: Fields) -> list[str]:
    """The names of the fields that differ."""
    nothing = object()
    return [name for name in {**found, **asked} if found.get(name, nothing) != asked.get(name, nothing)]


def _in_words(names: list[str], found: Fields, asked: Fields) -> str:
    none = "nothing"
    return ", ".join(f"{name} is {found.get(name, none)} there and {asked.get(name, none)} here" for name in names)


def schedules(fields: Fields) -> list[int]:
    """The epochs at which the schedules of the learning rate end, one after the other, the last at the run's end.

    >>> schedules({"epochs": 9}), schedules({"epochs": 9, "extended": [3, 5]})
    ([9], [3, 5, 9])
    """
    return [*fields.get("extended", []), fields["epochs"]]


def strangeness(found: Fields, ours: Fields) -> str:
    """In what a run that has left its fields somewhere is another than ours, in words; nothing if it is ours as it is,
    or before it was extended.

    >>> strangeness({"seed": 1, "epochs": 3}, {"seed": 2, "epochs": 9, "extended": [3]})
    'seed is 1 there and 2 here'
    """
    before = [*found.get("extended", []), found.get("epochs")]
    same = schedules(ours)[: len(before)] == before
    lengths = {} if not same else {"epochs": None, "extended": None}
    found, ours = {**found, **lengths}, {**ours, **lengths}
    return _in_words(_differing(found, ours), found, ours)


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses aliases, of which nine lines can make a list of a billion, and deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent) or self.depth > 9:
            raise yaml.YAMLError("it has aliases (*) or lists in lists in lists, which a configuration does not need")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """A safe dumper that writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse_yaml(text: str) -> Any:
    """What YAML says. Raises yaml.YAMLError where it is none, or has aliases."""
    return yaml.load(text, _Loader)


def _as_yaml(fields: Fields) -> str:
    return yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def files(run: Path) -> tuple[Path, Path]:
    """(configuration, weights): of a run's folder, or of a weights file that has its configuration beside it.

    >>> [file.name for file in files(Path("weights/ram-28-6.safetensors"))]
    ['ram-28-6.yaml', 'ram-28-6.safetensors']
    """
    if run.suffix == ".safetensors":
        return run.with_suffix(".yaml"), run
    return run / "config.yaml", run / "model.safetensors"


def _read_fields(run: Path) -> Fields:
    """The contents of config.yaml."""
    config, _ = files(run)
    try:
        fields = parse_yaml(read(config, LARGEST_TEXT).decode())
    except FileNotFoundError as error:
        raise Failure(f"{run} is not a run: it has no {config.name}.") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise Failure(f"{config} cannot be read: {reason(error)}.") from error
    if not isinstance(fields, dict) or "recipe" not in fields or not all(isinstance(name, str) for name in fields):
        raise Failure(f"{config} should name a recipe and the fields of its configuration, but does not.")
    if not _ascending(fields.get("extended", []), fields.get("epochs")):
        raise Failure(f"{config} should list under extended the epochs before the last, but does not.")
    return fields


def _ascending(before: Any, last: Any) -> bool:
    """Whether these are epochs, the last of which is checked with the rest of the configuration."""
    if not isinstance(before, list) or any(type(epoch) is not int for epoch in before):
        return False
    epochs = [0, *before, *([last] if type(last) is int else [])]
    return not before or all(earlier < later for earlier, later in pairwise(epochs))


def read_config(run: Path, recipe: Recipe | ModuleType | None = None) -> tuple[Recipe, Any]:
    """The recipe of a run, regard's own of that name unless given, and the configuration that it was run with.

    Raises Failure if there is no such run or recipe, if it is of a user's recipe that is not given, or if the fields do
    not fit.
    """
    fields = _read_fields(run)
    name = str(fields["recipe"])
    recipe = open_recipe(recipe) if recipe else _find_recipe(run, name)
    if Path(name).stem != recipe.name:
        raise Failure(f"{run} is a run of the recipe {name!r}, not of {recipe.name}.")
    return recipe, _build_config(run, recipe.Config, fields)


def _find_recipe(run: Path, name: str) -> Recipe:
    """The recipe of that name that regard has, and no other: what a folder says may not choose what code is run."""
    if is_path(name):
        raise Failure(
            f"{run} is of a recipe in a file, {name!r}, and what a folder says is never run: say yourself which file "
            "it is, by --recipe FILE."
        )
    if name not in own_recipes():
        raise Failure(f"{files(run)[0]} names the recipe {name!r}, which regard does not have.")
    return open_recipe(name)


def _build_config(run: Path, config: type, fields: Fields) -> Any:
    """The dataclass with these fields, each checked and converted by its type."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config)
    own = {name: value for name, value in fields.items() if name not in OF_THE_RUN}
    try:
        return config(**vars(parser.parse_object(own)))
    except (ArgumentError, TypeError, ValueError) as error:
        raise Failure(f"{files(run)[0]} does not fit its recipe: {reason(error)}.") from error
