"""Where a trained model looked and where it failed: pictures and a page for one run, and the parts for a comparison."""

import io
import shlex
from collections.abc import Iterator, Mapping
from heapq import nlargest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regard.app import explaining
from regard.app.prediction import load
from regard.app.report.glances import read_learning
from regard.app.report.layout import write_report
from regard.app.report.matrix import Matrix
from regard.app.report.report import Look, Picture, Report
from regard.app.training import evaluation
from regard.app.training.config import files
from regard.app.training.errors import Failure
from regard.app.training.files import make_folder, write
from regard.app.training.metrics import read_metrics
from regard.app.training.run import OpenedRun, open_run
from regard.recipes.base import Recipe, first_paragraph

SHOWN = 12  # images or sentences on a page
WORST = 10  # of those that were answered worst

Looks = Look | list[Picture]


@torch.no_grad()
def look(recipe: Recipe, model: nn.Module, split: Any, indices: Tensor) -> Any:
    """Where the model looked on these examples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return recipe.look(model.eval(), split.batch(indices, None))


def failures(opened: OpenedRun, split: Any) -> Any:
    """Where it looked on the first examples of the split that it answered wrongly, or if the recipe says of each its
    `badness`, on the worst of all; None if no answer is wrong, or none can be."""
    recipe = opened.recipe
    worst = nlargest(WORST if recipe.badness else SHOWN, _wrong(opened, split))
    indices = [-before for _, before in worst]
    return look(recipe, opened.model, split, torch.tensor(indices)) if indices else None


def _wrong(opened: OpenedRun, split: Any) -> Iterator[tuple[Any, int]]:
    """How bad each wrong answer is, 1 if none is worse than another, and minus the number of its example, so that of
    equals the first counts as the largest: a split is evaluated in an order of its own."""
    recipe = opened.recipe
    for indices, values in evaluation.results(opened, split):
        if "error" not in values:
            return
        badness = recipe.badness(values) if recipe.badness else values["error"].tolist()
        yield from ((badness[i], -int(indices[i])) for i in values["error"].nonzero().flatten().tolist())


def show_text(run: Path, folder: Path, text: str, recipe: Recipe | None = None) -> list[Path]:
    """Writes where a run looked in a text of the user's, as pictures and as a page, to folder/text; returns them.

    Raises Failure if the recipe reads no texts, or the run cannot be opened.
    """
    trained = load(run, recipe)
    recipe = trained.recipe
    split = recipe.example(trained.network, text)
    if split is None:
        raise Failure(f"the recipe {recipe.name} reads no texts: --text is for others.")
    seen = look(recipe, trained.network, split, torch.tensor([0]))
    page = Report(
        title=f"Where {run.name} looked",
        question=first_paragraph(recipe.about),
        data="a text of the command line",
        pictures={"Where it looked": seen},
        command=f"regard look {run} --text {shlex.quote(text)}",
        config=files(run)[0].read_text(encoding="utf-8"),
    )
    return [*draw(folder / "text", seen, run.name), write_report(folder / "text" / "report.html", page)]


def show(run: Path, folder: Path, data: str = "", recipe: Recipe | None = None) -> list[Path]:
    """Writes the pictures of a run and its report.html to a folder, on the first of the test split; returns what it
    wrote."""
    opened, name = open_run(run, data, recipe), run.name if run.is_dir() else run.stem
    recipe, _, splits, model = opened
    seen = look(recipe, model, splits.test, torch.arange(min(SHOWN, len(splits.test))))
    failed = failures(opened, splits.test)
    page = Report(
        title=f"Where {name} looked",
        question=recipe.task(splits),
        data=splits.describe,
        curves={name: points} if (points := curve(run, recipe)) else {},
        curves_x="epoch",
        curves_y=recipe.METRIC.meaning,
        curves_unit=recipe.METRIC.unit,
        **shown(recipe, {name: seen}, {name: failed}),
        learning={name: learned} if (learned := read_learning(run)) else {},
        mattered={name: figures} if (figures := explaining.figures(opened, SHOWN)) else {},
        command=f"regard look {run}",
        config=files(run)[0].read_text(encoding="utf-8"),
    )
    drawn = [*draw(folder / "pictures", seen, name), *_draw_learned(folder / "pictures", learned)]
    return [*drawn, write_report(folder / "report.html", page)]


def shown(recipe: Recipe, seen: Mapping[str, Looks], failed: Mapping[str, Looks | None]) -> dict[str, Any]:
    """Where models looked, those that look, and where they failed, if they did, as fields of a report."""
    failed = {name: each for name, each in failed.items() if each}
    if all(isinstance(each, Look) for each in seen.values()):
        return {"looks": seen, "failures": failed}
    names = {name: name if len(seen) > 1 else "it" for name in seen}
    looked = {f"Where {names[name]} looked": each for name, each in seen.items() if each}
    how = "failed most" if recipe.badness else "failed"
    return {"pictures": looked | {f"Where {names[name]} {how}": each for name, each in failed.items()}}


def curve(run: Path, recipe: Recipe) -> list[tuple[float, float]]:
    """How far the recipe's metric is from perfection after each epoch."""
    metric, rows = recipe.METRIC, read_metrics(run)
    return [(float(row["epoch"]), metric.distance(row[metric.name])) for row in rows]


def draw(folder: Path, seen: Looks, model: str) -> list[Path]:
    """Draws all images of a look on one sheet, and each by itself with what was seen there; or writes the pictures."""
    make_folder(folder)
    if isinstance(seen, Look):
        return _draw(folder, seen, model)
    paths = [folder / f"{n}.png" for n in range(1, len(seen) + 1)]
    for path, picture in zip(paths, seen, strict=True):
        write(path, picture.png)
    return paths


def _draw(folder: Path, seen: Look, model: str) -> list[Path]:
    from regard.app.report import image_figures

    figures = {"gallery": image_figures.gallery(seen, model)}
    for n, image in enumerate(seen.images):
        box = None if seen.boxes is None else seen.boxes[n]
        if seen.locations is not None and seen.weights is not None:
            figures[f"image-{n + 1}"] = image_figures.attended(seen, n, model)
        elif seen.locations is not None:
            patches = None if seen.patches is None else seen.patches[n]
            figures[f"image-{n + 1}"] = image_figures.path(image, seen.locations[n], patches, box, model)
        elif seen.weights is not None and seen.grid is not None:
            figures[f"image-{n + 1}"] = image_figures.heat(image, seen.weights[n], seen.grid, box, model)
    return [_save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def _draw_learned(folder: Path, learned: Mapping[int, Matrix]) -> list[Path]:
    """Draws how it learned where to look, if that is known."""
    from regard.app.report import text_figures

    return [_save(text_figures.learned(learned), folder / "learning.png")] if learned else []


def _save(figure: Any, path: Path) -> Path:
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    write(path, picture.getvalue())
    return path
