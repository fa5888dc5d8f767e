"""What a recipe is: the names that a file must have to be trained, compared and used, and those that it may have.

A recipe is a file of Python, regard's own or yours: `regard train ./mine.py`. The names are those of the class
`Recipe`, without the `self`: a function of the class is a function of the file. A file that lacks an optional name has
what stands in the class. The smallest recipe is a `Config`, `data`, a `Model`, its `loss`, what to `evaluate`, and a
`METRIC`.

Nothing that is loaded runs code: a file of yours is opened where you name it on the command line, never because a
folder says that it is of that file.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from regard.app.data.splits import Split, Splits
from regard.app.text.reading import raw_lines
from regard.app.training.errors import Failure
from regard.app.training.schedules import adam
from regard.checks import unknown
from regard.recipes import own_recipes

Batch = dict[str, Tensor]
"""The tensors of some examples, by name."""


class Metric(NamedTuple):
    """The figure by which epochs and models are compared: a column of metrics.csv.

    >>> METRIC = Metric("valid_error", "min", "share of the validation images answered wrongly")
    >>> METRIC.test, METRIC.distance(0.25), METRIC.headline({"test_error": 0.25})
    ('test_error', 0.25, {'error_percent': 25.0})
    >>> Metric("valid_bleu", "max", "distance to 100 of BLEU", 100.0, "BLEU").headline({"test_bleu": 24.1})
    {'bleu': 24.1}
    """

    name: str
    """The column: valid_ and what `evaluate` or `conclude` calls it."""
    better: Literal["min", "max"]
    """Whether less of it is better, or more."""
    meaning: str
    """What the curves show, in words: the error itself, or how far from perfection it is."""
    perfect: float = 0.0
    """Its value where nothing is wrong."""
    label: str = "Wrong"
    """What it is called before a number: "Wrong on the test images: soft 5.0 %"."""
    unit: str = ""
    """What it is counted in, such as nats, where it is neither a share of one nor a score with a `perfect` value."""

    @property
    def test(self) -> str:
        """The same figure of the test split."""
        return f"test_{self.name.removeprefix('valid_')}"

    @property
    def is_share(self) -> bool:
        """Whether it is a share of one, which people read in per cent."""
        return self.perfect in (0.0, 1.0) and not self.unit

    def distance(self, value: float) -> float:
        """How far a value is from perfection: 0 there, and 1 at the other end."""
        return abs(self.perfect - value) / (self.perfect or 1.0)

    def headline(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The figure of the test split under the name that people read, in per cent where it is a share; nothing if it
        is not among the metrics."""
        if self.test not in metrics:
            return {}
        name, value = self.test.removeprefix("test_"), metrics[self.test]
        return {f"{name}_percent": round(100 * value, 4)} if self.is_share else {name: round(value, 4)}


class Measure(NamedTuple):
    """A column of the table of a comparison: where its value stands in the results, by what it is multiplied, and what
    is said of it. "{noun}" stands for what an example is, "{spread}" for what ± is."""

    key: str
    factor: float
    name: str
    unit: str
    meaning: str


COSTS = (
    Measure("multiply_adds", 1e-6, "multiply-adds", "M", "Millions for each {noun}, counted as they are done."),
    Measure("inference", 1, "answering", "{noun}s/s", "Timed in turn with the others, on one thread."),
    Measure("training", 1, "learning", "{noun}s/s", "Timed in turn with the others, on one thread."),
)
"""What every model costs, as columns."""

ERROR = Measure("test_error", 100, "test error", "%", "Share of the test {noun}s answered wrongly, ± {spread}.")
"""What most are judged by, as a column."""


@dataclass
class NoOptions:
    """Of a recipe whose predictions need none."""


@runtime_checkable
class Recipe(Protocol):
    """The names of a recipe. A batch is the tensors of B examples, by name; a model is what `Model` makes.

    Raises what is said beside each name, and nothing else: errors that a user should hear are ValueError or Failure.
    """

    name: str
    """What it is called: the name of the file."""
    source: str
    """What a run's config.yaml says it is of: the name of one of regard's own, or the path of a user's file."""
    about: str
    """Its docstring: the first sentence says what the task is."""

    # What every recipe has.

    Config: Any
    """A dataclass of everything that a run is a function of: `seed`, `data`, `epochs` and `batch`, which every recipe
    has, `learning_rate` unless it has an `optimiser` of its own, and what it likes. The command line is made of it."""
    Model: Callable[[Any, Splits], Any]
    """Model(config, splits): the network, a `torch.nn.Module`, for data such as these."""
    METRIC: Metric
    """What is better."""

    def data(self, config: Any) -> Splits:
        """The examples to train on, to choose by and to judge by. Raises ValueError where they are missing."""
        ...

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What a step makes smaller, and numbers beside it for metrics.csv. It changes nothing."""
        ...

    def evaluate(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """Values of each example (B,), or of parts of them, that are averaged over a split. `error` says which examples
        were answered wrongly: the report shows them."""
        ...

    # What it may say of itself.

    NAMED_BY: Sequence[str] = ()
    """The fields of Config that a run is named by: ("attention",) makes runs/NAME/soft-seed0."""
    KINDS: Mapping[str, str] = {}
    """A sentence on each kind of attention, for the report of a comparison, which needs a field `attention` in Config
    whose type is a Literal of the kinds, or fields of kinds that are explained here in NAMED_BY."""
    QUICK: Mapping[str, Any] = {}
    """What `regard compare --quick` makes of Config."""
    COLUMNS: Sequence[Measure] = (ERROR, *COSTS)
    """The table of a comparison; a column that no model has a value for is left out."""

    def task(self, splits: Splits) -> str:
        """The task on these data, in a sentence: the first one of the docstring."""
        return first_paragraph(self.about)

    def noun(self, splits: Splits) -> str:
        """What an example of these data is called, in the singular."""
        return "example"

    # How it is trained.

    def optimiser(self, model: Any, config: Any, steps: int) -> tuple[Any, Any]:
        """The optimiser, and the schedule that is called after each of the `steps`."""
        return adam(model.parameters(), config.learning_rate, steps)

    def after_step(self, model: Any) -> None:
        """Changes the model after each step of training, beyond what the optimiser does. What it changes are buffers,
        so that a run which was stopped goes on as if it had not been."""

    def warning(self, row: Mapping[str, int | float]) -> str:
        """What should be said of an epoch's row of metrics.csv, if anything."""
        return ""

    # What is told of it.

    def conclude(self, sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """The figures of a split, from the sum and the number of each of its values: their means."""
        return {name: total / count for name, (total, count) in sums.items()}

    badness: Callable[[Mapping[str, Tensor]], Sequence[Any]] | None = None
    """badness(values): how bad each answer of a batch is, from what `evaluate` says; the report then shows the worst,
    else the first that are wrong."""

    def look(self, model: Any, batch: Batch) -> Any:
        """Where the model looked: a `report.Look` on images, or a `report.Picture` of each example."""
        return []

    def glance(self, model: Any, batch: Batch) -> Any:
        """Where it looks on a batch of one, as a `report.Matrix`, which is kept after each epoch; or None."""
        return None

    def explained(self, model: Any, batch: Batch) -> Any:
        """For `regard faithfulness`: an answer by what can be hidden of each example, and where the model looked, as
        `regard.app.explaining.Explained`; or None."""
        return None

    # A run opened again, from its weights (name: tensor) alone or with data.

    def known(self, config: Any, weights: Mapping[str, Tensor]) -> Splits:
        """Splits without examples, but with all that `Model` asks them: what a trained model knows of its data."""
        return self.data(config)

    def fitted(self, config: Any, weights: Mapping[str, Tensor]) -> Splits:
        """The data of a configuration as a trained model must see them to go on learning: in the numbers of its own
        words and classes."""
        return self.data(config)

    def tested(self, config: Any, weights: Mapping[str, Tensor]) -> Splits:
        """The same to test it on, which may be others than it learned from: of these the test split counts."""
        return self.fitted(config, weights)

    def kept(self, config: Any, splits: Splits, run: Path) -> Splits:
        """The run's own data, with what is computed of them once and kept in its folder."""
        return splits

    # Its use: `regard predict RUN`, and `predict` of what `regard.load` gives.

    READS: str = ""
    """What predictions are made from, in words: "lines of text". Of a recipe that predicts nothing, nothing."""
    Prediction: Any = NoOptions
    """A dataclass of what may be chosen when predicting, such as the size of a beam."""

    def inputs(self, arguments: Sequence[str], stream: BinaryIO) -> Iterator[Any]:
        """What is to be answered, one by one: from the arguments, or without any from standard input as it comes. In
        the place of one that cannot be read stands the ValueError or OSError that says why, and the others follow."""
        raise Failure(f"the recipe {self.name} makes no predictions: it has no inputs.")

    def prepare(self, model: Any, given: Any) -> Any:
        """One input as `predict` takes it. Raises ValueError, OSError or UnicodeError for a bad one, and the others are
        still answered."""
        return given

    def predict(self, model: Any, prepared: Sequence[Any], options: Any) -> Sequence[Any]:
        """The answers to some inputs, in their order: texts or named tuples."""
        raise Failure(f"the recipe {self.name} makes no predictions: it has no predict.")

    def written(self, given: Any, prediction: Any) -> str:
        """An answer as it is printed."""
        return str(prediction)

    def example(self, model: Any, text: str) -> Split | None:
        """A split with one example made of a text, for `regard look RUN --text`; None if it reads no texts."""
        return None


def first_paragraph(text: str) -> str:
    """The first paragraph of a docstring, on one line.

    >>> first_paragraph("Classify a digit\\nby glimpses.\\n\\nMnih et al. 2014.")
    'Classify a digit by glimpses.'
    """
    return " ".join(text.split("\n\n")[0].split())


def from_files(arguments: Sequence[str], stream: BinaryIO, read: Callable[[Any, str], Iterator[Any]]) -> Iterator[Any]:
    """What `read(stream, name)` gives of each of some files, or without any of standard input; in the place of what is
    left of a file that cannot be read, the error."""
    if not arguments:
        yield from read(stream, "standard input")
    for path in arguments:
        try:
            with open(path, "rb") as file:
                yield from read(file, path)
        except (OSError, ValueError) as error:
            yield error


def paths(arguments: Sequence[str], stream: BinaryIO) -> Iterator[str]:
    """The paths that are given, or without any those of standard input, one a line: the `inputs` of pictures."""
    return iter(arguments) if arguments else filter(None, raw_lines(stream))


REQUIRED = ("Config", "Model", "METRIC", "data", "loss", "evaluate")
NAMES = tuple(name for name in {**vars(Recipe), **Recipe.__annotations__} if not name.startswith("_"))


class _File(Recipe):
    """A module as a recipe: its names, and for those that it lacks the defaults."""

    def __init__(self, module: ModuleType, source: str):
        self.name, self.source, self.about = Path(source).stem, source, module.__doc__ or ""
        for name in NAMES:
            if name in vars(module):
                setattr(self, name, vars(module)[name])

    def __repr__(self) -> str:
        return f"<recipe {self.source}>"


def open_recipe(recipe: "str | Path | ModuleType | Recipe") -> Recipe:
    """The recipe of that name, or in that file, or that module.

    A path has a slash in it or ends in .py: `./mine.py`, or `mine.py`. The file is run, once in a process.

    Raises ValueError where there is no such recipe or file, the file does not run, or lacks a name that a recipe needs.

    >>> open_recipe("glimpse").METRIC.better
    'min'
    >>> open_recipe("glimpsy")
    Traceback (most recent call last):
    ValueError: unknown recipe 'glimpsy': did you mean 'glimpse'?
    """
    if isinstance(recipe, ModuleType):
        return _checked(recipe, recipe.__name__.rpartition(".")[2])
    if not isinstance(recipe, str | Path):
        return recipe
    return _checked(_run(Path(recipe)) if is_path(str(recipe)) else _find(str(recipe)), str(recipe))


def is_path(recipe: str) -> bool:
    """Whether that is the path of a user's recipe, and not the name of one of regard's.

    >>> is_path("./mine.py"), is_path("mine.py"), is_path("glimpse")
    (True, True, False)
    """
    return "/" in recipe or recipe.endswith(".py")


def _find(name: str) -> ModuleType:
    if name not in own_recipes():
        raise ValueError(unknown("recipe", name, own_recipes()))
    return import_module(f"regard.recipes.{name}")


def _run(file: Path) -> ModuleType:
    """The module that a file makes. What lies beside it can be imported there, as from a script."""
    if not file.is_file():
        raise ValueError(f"there is no recipe {file}: expected a file of Python")
    key = f"{file.stem}_{blake2s(bytes(file.resolve())).hexdigest()[:8]}"  # no other file's, and no other module's
    if key in sys.modules:
        return sys.modules[key]
    spec = spec_from_file_location(key, file.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is no file of Python: the name of a recipe's file ends in .py")
    if (folder := str(file.resolve().parent)) not in sys.path:
        sys.path.append(folder)
    module = sys.modules[key] = module_from_spec(spec)  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[key]
        if isinstance(error, Exception):
            raise ValueError(f"the recipe {file} cannot be run: {type(error).__name__}: {error}") from error
        raise
    return module


def _checked(module: ModuleType, source: str) -> Recipe:
    missing = [name for name in REQUIRED if name not in vars(module)]
    if missing:
        raise ValueError(f"{source} is no recipe, as it lacks {', '.join(missing)}: a recipe has {', '.join(REQUIRED)}")
    return _File(module, source)  # pyright: ignore[reportAbstractUsage] - the module has what is abstract
