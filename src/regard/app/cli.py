"""The command line: `regard VERB ...`.

`regard --help` answers at once: what is heavy is imported by the verb that needs it. Exit statuses: 0, 1 (it failed),
2 (the call was wrong), 130 (Ctrl-C). Errors are one sentence on stderr; `--debug` shows the traceback instead.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from regard import __version__
from regard.app import flags
from regard.app.flags import Wrong
from regard.app.text.reading import printable
from regard.app.training.errors import Failure
from regard.app.training.progress import in_words
from regard.checks import unknown

RUNS = Path("runs")
SCRIPTS = {"bench": Path("benchmarks"), "experiment": Path("experiments")}
"""What `regard bench NAME` and `regard experiment NAME` run: a file NAME.py of these folders."""
NO_OPTIONS = dataclass(type("NoOptions", (), {}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the arguments say (by default those of the process) and returns the exit status.

    >>> main(["cite", "aditive"])
    2
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in words:
        words.remove("--debug")
        return _dispatch(words)
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _say("stopped by Ctrl-C", 130)
    except Wrong as wrong:
        return _say(wrong, 2)
    except Failure as failure:
        return _say(failure, failure.status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 1
    except OSError as error:
        return _say(f"{error.strerror}: {error.filename}" if error.filename else error, 1)
    except ValueError as error:  # ours are sentences: data that are missing, sizes that do not fit
        return _say(error, 1)
    except Exception as error:
        return _say(f"{type(error).__name__}: {error} (--debug shows where)", 1)


def _say(what: object, status: int) -> int:
    print(f"regard: {printable(' '.join(str(what).split()))}", file=sys.stderr)
    return status


def _dispatch(words: list[str]) -> int:
    verb, *rest = words or ["--help"]
    if verb in ("-h", "--help"):
        print(_help())
    elif verb == "--version":
        print(f"regard {__version__}")
    elif verb in VERBS:
        try:
            return VERBS[verb][0](rest) or 0
        except SystemExit as stop:  # a parser has printed its help
            return int(stop.code or 0)
    else:
        raise Wrong(unknown("verb", verb, VERBS))
    return 0


def _help() -> str:
    verbs = "\n".join(f"  {f'{verb} {what}':25}{does}" for verb, (_, what, does) in VERBS.items())
    return f"""usage: regard VERB ...

Soft and hard attention: where to look is a probability distribution.

{verbs}

`regard VERB --help` names the options of a verb.
--version prints the version; --debug shows where an error came from."""


def _parser(verb: str, **options: str) -> argparse.ArgumentParser:
    """A parser for a verb without typed flags, with these positional arguments."""
    parser = flags.Parser(f"regard {verb}", description=VERBS[verb][2].capitalize() + ".", allow_abbrev=False)
    for name, text in options.items():
        parser.add_argument(name, metavar=name.upper(), help=text)
    return parser


def show_list(words: list[str]) -> None:
    """`regard list`: recipes, mechanisms, and the benchmarks and experiments of the current directory."""
    from regard.named import TABLE

    parser = _parser("list")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--weights", action="store_true", help="the trained weights that come with regard's repository")
    options = flags.parse(parser, words)
    as_json = options.json
    if options.weights:
        show_weights(as_json)
        return
    rows = [(row.name, str(row.score), str(row.over), str(row.read), row.source, row.what) for row in TABLE]
    columns = ("name", "score", "over", "read", "source", "what")
    scripts = {folder.name: sorted(file.stem for file in folder.glob("*.py")) for folder in SCRIPTS.values()}
    if as_json:
        mechanisms = [dict(zip(columns, row, strict=True)) for row in rows]
        print(json.dumps({"recipes": flags.recipes(), "mechanisms": mechanisms, **scripts}, indent=2))
        return
    print("Recipes (regard train NAME)\n")
    print(_columns(list(flags.recipes().items())))
    print("\nMechanisms (regard cite NAME)\n")
    print(_columns([columns[:5], *(row[:5] for row in rows)]))
    for verb, folder in SCRIPTS.items():
        if scripts[folder.name]:
            print(f"\n{folder.name.capitalize()} (regard {verb} NAME)\n\n  {'  '.join(scripts[folder.name])}")


def show_weights(as_json: bool) -> None:
    """The trained weights in the folder weights of regard's repository, if it is used from there: the file, what it
    answers, and its size."""
    from regard.app.training.config import read_config

    files = sorted((Path(__file__).parents[3] / "weights").glob("*.safetensors"))
    rows = [
        {"file": f"weights/{file.name}", "recipe": read_config(file)[0].name, "megabytes": file.stat().st_size / 1e6}
        for file in files
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print(_columns([(row["file"], row["recipe"], f"{row['megabytes']:.1f} MB") for row in rows]))
    else:
        print("The trained weights are in the folder weights of regard's repository, and are not installed with it.")


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    lines = ("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


def train(words: list[str]) -> None:
    """`regard train RECIPE`."""
    name, rest = flags.recipe_of("train", words)
    recipe = flags.find_recipe(name)
    from regard.app.training import fabric
    from regard.app.training import loop as training

    parser = flags.typed_parser("train", recipe, recipe.Config, fabric.Fit, skip=("progress",))
    parser.add_argument("--progress", choices=("bar", "none"), default="bar", help="What is shown of it.")
    parser.add_argument("--name", type=str, default="", help="Of the run; by default its kind and seed.")
    parser.add_argument("--from", type=str, default="", metavar="RUN", help="Whose weights the model has at first.")
    options = flags.parse(parser, rest)
    flags.check_name(options.name)
    config, fit = flags.build(recipe.Config, options), flags.build(fabric.Fit, options)
    run = RUNS / recipe.name / (options.name or flags.name_of(config, recipe.NAMED_BY))
    start = _find_run(options["from"]) if options["from"] else None
    best = training.train(recipe, config, run, fit, start)
    if fabric.is_first():
        print(f"{run}  {in_words(best)}")


def evaluate(words: list[str]) -> None:
    """`regard evaluate RUN`."""
    parser = _run_parser("evaluate")
    parser.add_argument("--data", default="", metavar="DIR", help="other data than it was trained on")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = flags.parse(parser, words)
    run, recipe = _find_run(options.run), _given_recipe(options)
    from regard.app.training.config import read_config
    from regard.app.training.evaluation import evaluate as average

    metrics = average(run, recipe=recipe, data=options.data)
    metrics = read_config(run, recipe)[0].METRIC.headline(metrics) | metrics
    print(json.dumps(metrics) if options.json else _columns([(key, f"{value:.4g}") for key, value in metrics.items()]))


def compare(words: list[str]) -> None:
    """`regard compare [RECIPE]`."""
    name, rest = flags.recipe_of("compare", words, default="glimpse")
    recipe = flags.find_recipe(name)
    shorter = recipe.QUICK if "--quick" in rest else {}
    options = flags.parse(_compare_parser(recipe, shorter), rest)
    if options.seeds < 1:
        raise Wrong(f"--seeds expected at least 1, but got {options.seeds}")
    config = flags.build(recipe.Config, options)
    flags.check_name(options.name)
    from regard.app.compare import comparison, summary
    from regard.app.training.run import write

    field, *others = comparison.fields(recipe)
    asked = [name for name in (field, *others) if getattr(options, f"{name}s")]
    if len(asked) > 1:
        raise Wrong(f"one thing is compared at a time, but got {' and '.join(f'--{name}s' for name in asked)}")
    folder = flags.name_of_comparison(config, recipe.Config(**shorter), options.quick)
    if asked and asked[0] in others:
        field, folder = asked[0], f"{asked[0]}s-{folder}"
    if getattr(config, field) != getattr(recipe.Config(), field):
        raise Wrong(f"--{field} is what is compared: its kinds are chosen by --{field}s")
    only = _chosen(getattr(options, f"{field}s"), comparison.kinds(recipe, field), field)
    folder = RUNS / "compare" / recipe.name / (options.name or folder)
    plan = comparison.Plan(recipe, field, config, options.seeds, folder, only)
    results = comparison.compare(plan, " ".join(["regard compare", *words]))
    as_json = json.dumps(results, indent=2)
    if options.out:
        write(Path(options.out), as_json.encode())
    if options.json:
        print(as_json)
    else:
        summary.show(recipe.COLUMNS, results["rows"], results["data"], results["error_spread"], results["example"])
        print(results["report"])


def _chosen(text: str, kinds: Sequence[str], name: str) -> tuple[str, ...]:
    """Some kinds of attention, with commas between. Raises Wrong where there is no such kind."""
    chosen = tuple(dict.fromkeys(filter(None, text.split(","))))
    for kind in chosen:
        if kind not in kinds:
            raise Wrong(unknown(name, kind, kinds))
    return chosen


def _compare_parser(recipe: Any, shorter: Mapping[str, Any]) -> argparse.ArgumentParser:
    from regard.app.compare.comparison import fields, kinds

    usual, *others = fields(recipe)
    parser = flags.typed_parser("compare", recipe, recipe.Config, skip=("seed",) if others else (usual, "seed"))
    parser.add_argument("--seeds", type=int, default=1, help="How many of each are trained; three show the spread.")
    for field in (usual, *others):
        what = "Some of them" if field == usual else f"Compare these in place of each {usual}"
        some = f"{what}, such as {','.join(kinds(recipe, field)[:2])}."
        parser.add_argument(f"--{field}s", type=str, default="", metavar="KINDS", help=some)
    parser.add_argument("--quick", action="store_true", help="In a minute: large errors, but all else holds.")
    parser.add_argument("--name", type=str, default="", help="Of the comparison; by default what is not as usual.")
    parser.add_argument("--json", action="store_true", help="Print the results as JSON.")
    parser.add_argument("--out", type=str, default="", metavar="FILE", help="Write the results there, too.")
    parser.set_defaults(**shorter)
    return parser


def look(words: list[str]) -> None:
    """`regard look RUN`."""
    parser = _run_parser("look")
    parser.add_argument("--data", default="", metavar="DIR", help="other data than it was trained on")
    parser.add_argument("--text", metavar="TEXT", help="show where it looks in this, of recipes that read text")
    options = flags.parse(parser, words)
    if options.text is not None and (options.data or not options.text.strip()):
        raise Wrong(f"--text expected a sentence and no --data beside it, but got {options.text!r}")
    run, recipe = _find_run(options.run), _given_recipe(options)
    from regard.app.report import looking

    folder = run if run.is_dir() else RUNS / "look" / run.stem
    if options.text:
        shown = looking.show_text(run, folder, options.text, recipe)
    else:
        shown = looking.show(run, folder, options.data, recipe)
    print("\n".join(map(printable, shown)))


def faithfulness(words: list[str]) -> None:
    """`regard faithfulness RUN`."""
    parser = _run_parser("faithfulness")
    parser.add_argument("--data", default="", metavar="DIR", help="other data than it was trained on")
    parser.add_argument("--examples", type=int, default=200, help="of the test split, the first so many")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = flags.parse(parser, words)
    if options.examples < 1:
        raise Wrong(f"--examples expected at least 1, but got {options.examples}")
    run, recipe = _find_run(options.run), _given_recipe(options)
    from regard.app.explaining import MEANINGS, measured

    found = measured(run, recipe, options.data, options.examples)
    if options.json:
        print(json.dumps(found))
        return
    orders = list(dict.fromkeys(order for each in found.values() for order in each))
    cells = [[f"{each[order]:.4g}" if order in each else "" for order in orders] for each in found.values()]
    print(
        _columns([("", *orders, ""), *((name, *row, MEANINGS[name]) for name, row in zip(found, cells, strict=True))])
    )


def predict(words: list[str]) -> int:
    """`regard predict RUN [INPUT...]`: answers to what a recipe reads, as it comes; the status is 1 if any was bad."""
    if not words or words[0].startswith("-"):
        flags.parse(_predict_parser(NO_OPTIONS), words)
        raise Wrong("regard predict expected a run first, then inputs and flags")
    recipe = _given_recipe(flags.parse_known(_run_parser("predict"), words))
    from regard.app import prediction

    trained = prediction.load(_find_run(words[0]), recipe)
    options = flags.parse(_predict_parser(trained.recipe.Prediction, trained.recipe.READS), words)
    chosen, bad = flags.build(trained.recipe.Prediction, options), []
    if options.batch < 1:
        raise Wrong(f"--batch expected at least 1, but got {options.batch}")

    def complain(given: object, error: Exception) -> None:
        bad.append(given)
        _say(error, 1)

    if options.list and options.input:
        raise Wrong(f"--list expected no other inputs beside it, but got {options.input[0]}")
    folder = Path(options.out) if options.out else None
    with open(options.list, "rb") if options.list else nullcontext(sys.stdin.buffer) as stream:
        inputs = prediction.pending(trained.recipe.inputs(options.input, stream), options.part, folder)
        for number, given, answer in prediction.answers(trained, inputs, chosen, options.batch, complain):
            found = prediction.as_json(number, given, answer)
            if folder:
                print(printable(prediction.keep(found, folder)), flush=True)
            else:
                as_json = options.json and json.dumps(found, ensure_ascii=False)
                print(as_json or trained.recipe.written(given, answer), flush=True)
    return 1 if bad else 0


def _predict_parser(options: Any, reads: str = "") -> argparse.ArgumentParser:
    """A parser of what is common to all predictions, and of a recipe's own options, a dataclass."""
    what = f"{reads}; standard input if none is given" if reads else "what the recipe reads; or by standard input"
    parser = _run_parser("predict")
    parser.add_argument("input", metavar="INPUT", nargs="*", help=what)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each answer")
    parser.add_argument("--list", metavar="FILE", help="a file that is read as standard input would be")
    parser.add_argument(
        "--out", metavar="FOLDER", help="for files of JSON, an answer each; what is there is not redone"
    )
    parser.add_argument(
        "--part", type=flags.part, default=(1, 1), metavar="I/N", help="every N-th input, from the I-th"
    )
    parser.add_argument("--batch", type=int, default=64, help="inputs that are answered together, once they are there")
    flags.add_fields(parser, options)
    return parser


def push(words: list[str]) -> None:
    """`regard push RUN NAME`: a run to the Hub of Hugging Face, or what would go there into a folder."""
    parser = _run_parser("push")
    parser.add_argument("name", metavar="USER/NAME", help="of the repository, which is made if it is not there")
    parser.add_argument("--licence", default="", help="of the weights and their data, such as apache-2.0")
    parser.add_argument("--private", action="store_true", help="make a repository that others cannot see")
    parser.add_argument("--out", default="", metavar="FOLDER", help="write what would go up there, and upload nothing")
    options = flags.parse(parser, words)
    if options.name.count("/") != 1 or not all(options.name.split("/")):
        raise Wrong(f"regard push expected USER/NAME, but got {options.name!r}")
    run, recipe = _find_run(options.run), _given_recipe(options)
    from regard.app import hub

    if options.out:
        print("\n".join(hub.write_folder(run, Path(options.out), options.name, options.licence, recipe)))
    else:
        print(hub.push(run, options.name, options.licence, options.private, recipe))


def _run_parser(verb: str) -> argparse.ArgumentParser:
    """A parser for a verb that opens a run."""
    parser = _parser(
        verb, run="a folder such as runs/glimpse/hard-seed0, or a file such as weights/ram-28-6.safetensors"
    )
    parser.add_argument("--recipe", default="", metavar="FILE", help="the file of a recipe of your own")
    return parser


def _given_recipe(options: Any) -> Any:
    """The recipe that is named on the command line, if one is."""
    return flags.find_recipe(options.recipe) if options.recipe else None


def _find_run(text: str) -> Path:
    """The folder of a run, a path or its name below runs/, or hub:USER/NAME; or a file of weights with its
    configuration beside it, also one that comes with regard."""
    from regard.app import hub
    from regard.app.training.config import files

    if text.startswith(hub.PREFIX):
        return hub.found(text)
    if text.endswith(".safetensors"):
        return _find_weights(text)
    for run in (Path(text), RUNS / text):
        if files(run)[0].is_file():
            return run
    raise Wrong(unknown("run", text, [str(file.parent) for file in RUNS.rglob("config.yaml")]))


def _find_weights(text: str) -> Path:
    """A file of weights: a path, or one of those in regard's own repository, if it is used from there."""
    from regard.app.training.config import files

    for run in (Path(text), Path(__file__).parents[3] / text):
        if run.is_file() and files(run)[0].is_file():
            return run
        if run.is_file():
            raise Wrong(f"{run} expected its configuration beside it, but there is no {files(run)[0].name}")
    raise Wrong(
        f"there are no weights {text}: give the path of the file; those that come with regard are in the folder "
        "weights of its repository, and not installed with it"
    )


def script(verb: str, words: list[str]) -> int:
    """`regard bench NAME`, `regard experiment NAME`: runs a script of the current directory with the flags that are
    left."""
    folder = SCRIPTS[verb]
    if not words or words[0] in ("-h", "--help"):
        _parser(verb, name=f"{folder}/NAME.py; what follows is handed to it").parse_args(words or ["--help"])
    if not folder.is_dir():
        raise Wrong(f"the current directory has no folder {folder}, whose scripts regard {verb} runs")
    file = folder / f"{words[0]}.py"
    if not file.is_file():
        raise Wrong(unknown(folder.name.removesuffix("s"), words[0], [other.stem for other in folder.glob("*.py")]))
    return subprocess.call([sys.executable, str(file), *words[1:]])


def cite(words: list[str]) -> None:
    """`regard cite NAME ...`: the BibTeX of mechanisms or papers, each paper once."""
    from regard import named

    parser = _parser("cite")
    parser.add_argument("name", nargs="+", metavar="NAME", help="a mechanism (regard list) or a paper such as xu2015")
    names = flags.parse(parser, words).name
    try:
        print("\n\n".join(dict.fromkeys(named.cite(name) for name in names)))
    except ValueError as error:
        raise Wrong(str(error)) from None


VERBS: dict[str, tuple[Callable[[list[str]], int | None], str, str]] = {
    "list": (show_list, "", "the recipes and the mechanisms that there are"),
    "train": (train, "RECIPE", "train one model; a run that was stopped goes on where it was"),
    "evaluate": (evaluate, "RUN", "the test error of a run"),
    "compare": (compare, "[RECIPE]", "soft and hard attention side by side, with a report"),
    "look": (look, "RUN", "pictures of where a run looked"),
    "faithfulness": (faithfulness, "RUN", "whether it mattered where a run looked"),
    "predict": (predict, "RUN [INPUT ...]", "the answers of a run to what you give it"),
    "push": (push, "RUN USER/NAME", "a run to the Hub of Hugging Face, with a card"),
    "experiment": (partial(script, "experiment"), "NAME", "train what a table is made of, or print it"),
    "bench": (partial(script, "bench"), "NAME", "how fast, beside a plain implementation"),
    "cite": (cite, "NAME", "the BibTeX of a mechanism"),
}
