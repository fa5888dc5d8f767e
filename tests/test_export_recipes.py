"""What is trained leaves Python: what answers is exported of every recipe, for any number of inputs and where nothing
runs along the sequence for any length, and onnxruntime answers the same.

`LENGTHS` says which lengths a program keeps, `NO_ONNX` which choices have no ONNX program, and both why.
"""

import importlib
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.testing import assert_close

import regard as rg
from regard.recipes import own_recipes

pytestmark = [
    pytest.mark.unchecked,
    # torch's own, of its exporter.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:The tensor attributes"),
]

Batch = dict[str, Tensor]
PAGES = Path(__file__).parent.parent / "docs"
PAGE = (PAGES / "export.md").read_text()

IN_TURN = "a recurrent network reads it, which a program unrolls"
SHARE = "so many of the words are chosen as are a share of the length"
STEPS = "a step for each of them, which a program unrolls"
LENGTHS = {
    "bracket": ("words, steps", IN_TURN),
    "caption": ("words", IN_TURN),
    "classify": ("words, of `--encoder gru`", IN_TURN),
    "language": ("words", IN_TURN),
    "parse": ("words", IN_TURN),
    "rationale": ("words", SHARE),
    "read": ("words", IN_TURN),
    "recall": ("steps", STEPS),
    "speech": ("samples", "frames are cut from a sound, as many as fit"),
    "tag": ("words", IN_TURN),
    "translate": ("words, of all but `--attention self`", IN_TURN),
}
"""{recipe: the lengths that its program keeps as they were traced, and why}."""

KERNEL = "it takes a kernel of ours, as its plain road is a gradient, which torch.export cannot trace"
PACKED = "sentences are packed for the recurrent network, by lengths that torch.export cannot know"
NO_ONNX = {
    "answer": ("`--over chain`, `segments`", KERNEL),
    "bracket": ("the trees of `--decoder chart`", KERNEL),
    "parse": ("`--over projective`, `nonprojective`", KERNEL),
    "rationale": ("`--over segments`", KERNEL),
    "sampling": ("all", "patches are read from files, only where it looks"),
    "tag": ("`--over chain`", KERNEL),
    "translate": ("all but `--attention self`", PACKED),
}
"""{recipe: its choices that have no ONNX program, and why}."""


class Case(NamedTuple):
    """A small model of a recipe, what it answers, and inputs: so many, and so long where a length may change."""

    settings: dict[str, Any]
    told: Callable[[Any, Batch], Tensor]
    given: Callable[[int, int], Batch]


def words(*shape: int) -> Tensor:
    return torch.randint(1, 9, shape)


def sentences(count: int, length: int) -> Batch:
    return {"words": words(count, 4) - 1, "names": words(20), "forms": torch.randint(97, 110, (20, 24))}


def told_words(model: Any, batch: Batch) -> Tensor:
    told, _ = model(batch)
    return model.teller.score(model.teller.features(told, told.looked.context))


SMALL = {"hidden": 8, "size": 6}
FORMS = {"over": "softmax", "hidden": 8, "words": 8, "letters": 4, "filters": 5}
CASES = {
    "answer": Case(
        {"over": "softmax"},
        lambda model, batch: model(batch).answers.softmax(-1),
        lambda n, k: {"facts": words(n, k, 6), "question": words(n, 6)},
    ),
    "bracket": Case(
        {"decoder": "additive", "layers": 1, "hidden": 8, "words": 8, "shapes": 4, "scoring": 4},
        lambda model, batch: model.writer.label(model(batch)[0][0].features),
        lambda n, k: {"words": words(n, 4), "shapes": words(n, 4), "steps": words(n, 5)},
    ),
    "caption": Case(
        {"attention": "hard", "hidden": 8, "size": 16},
        told_words,
        lambda n, k: {"picture": torch.rand(n, 1, 60, 60), "caption": words(n, 4)},
    ),
    "classify": Case(
        {"attention": "hard", "encoder": "transformer", "scoring": 5, **SMALL},
        lambda model, batch: model(batch).logits.softmax(-1),
        lambda n, k: {"words": words(n, k)},
    ),
    "draw": Case(
        {"model": "draw", "steps": 2, "hidden": 8, "latent": 4},
        lambda model, batch: model(batch["image"]).canvases[-1].sigmoid(),
        lambda n, k: {"image": torch.rand(n, 1, 28, 28)},
    ),
    "language": Case(
        {"size": 8, "window": 5},
        lambda model, batch: model.guesses(model(batch["words"], model.nothing(batch["words"].shape[0])).known),
        lambda n, k: {"words": words(n, 4)},
    ),
    "parse": Case(
        {**FORMS, "layers": 1, "arcs": 8, "relations": 8}, lambda model, batch: model(batch).positions.mean, sentences
    ),
    "rationale": Case(
        {"over": "sigmoid", "size": 6, "units": 5},
        lambda model, batch: model(batch).logits[:, 0].softmax(-1),
        lambda n, k: {"words": words(n, 9)},
    ),
    "read": Case(
        {"reader": "sum", **SMALL},
        lambda model, batch: model(batch).chances,
        lambda n, k: {
            **{"words": words(n, 6), "names": torch.randint(-1, 4, (n, 6))},
            **{"story": torch.full((n,), 4), "blank": torch.full((n,), 5)},
        },
    ),
    "recall": Case(
        {"address": "soft", "hidden": 8, "width": 6, "longest": 4, "cells": 6},
        lambda model, batch: model(batch["input"])[0],
        lambda n, k: {"input": torch.rand(n, 2, 10).round()},
    ),
    "speech": Case(
        {"attention": "ctc", "units": 8, "bands": 10},
        lambda model, batch: model.aligned(model(batch)[0]),
        lambda n, k: {"sound": torch.randn(n, 2000), "samples": torch.full((n,), 1500)},
    ),
    "stitch": Case(
        {"attention": "seam-hard", "filters": 4},
        lambda model, batch: model(batch["pair"]).logits.sigmoid(),
        lambda n, k: {"pair": torch.rand(n, 4, 64, 144)},
    ),
    "tag": Case(FORMS, lambda model, batch: model(batch).mean, sentences),
    "translate": Case(
        {"attention": "self", "hidden": 16},
        lambda model, batch: model.logits(model(batch)[0].features),
        lambda n, k: {"source": words(n, k), "target": words(n, k + 2)},
    ),
}


class Told(nn.Module):
    """What a model answers."""

    def __init__(self, name: str):
        super().__init__()
        recipe: Any = importlib.import_module(f"regard.recipes.{name}")
        config = recipe.Config(**CASES[name].settings)
        self.model = recipe.Model(config, recipe.known(config, {}) if name == "stitch" else recipe.data(config)).eval()
        self.told = CASES[name].told
        if name == "draw":  # nothing is left to chance
            nn.init.zeros_(self.model.infer.weight)
            nn.init.constant_(self.model.infer.bias, -100)

    def forward(self, batch: Batch) -> Tensor:
        return self.told(self.model, batch)


class Together(nn.Module):
    """All of them, each on its own batch, so that ONNX's converter starts once."""

    def __init__(self):
        super().__init__()
        self.models = nn.ModuleDict({name: Told(name) for name in CASES})

    def forward(self, batches: dict[str, Batch]) -> dict[str, Tensor]:
        return {name: self.models[name](batch) for name, batch in batches.items()}


def inputs(count: int, length: int) -> dict[str, Batch]:
    return {name: case.given(count, length) for name, case in CASES.items()}


def dynamic() -> dict[str, Any]:
    """Which sizes change: those in which two inputs differ, the number of inputs being the first."""
    batch, found = Dim("batch", min=1, max=64), {}
    for name in CASES:
        pairs = zip(CASES[name].given(3, 7).items(), CASES[name].given(5, 9).values(), strict=True)
        found[name] = {
            key: {
                n: batch if n == 0 else Dim(f"{name}_{key}", min=4, max=24 if key == "facts" else 1000)
                for n, (size, other) in enumerate(zip(one.shape, two.shape, strict=True))
                if size != other
            }
            for (key, one), two in pairs
        }
    return found


@pytest.fixture(scope="module")
def program() -> tuple[Together, torch.export.ExportedProgram]:
    torch.manual_seed(0)
    model = Together()
    with torch.no_grad():
        return model, torch.export.export(model, (inputs(3, 7),), dynamic_shapes=(dynamic(),))


def test_all_recipes_are_here():
    assert {*CASES, "glimpse", "sampling"} == set(own_recipes())  # the example of the page, and the one that cannot


def test_answers_by_numbers_and_lengths_that_were_not_traced(program: Any):
    model, exported = program
    changing = {name for name, sizes in dynamic().items() if any(set(each) - {0} for each in sizes.values())}
    assert changing == {"answer", "classify", "translate"}
    for sizes in ((5, 9), (2, 5)):
        given = inputs(*sizes)
        assert_close(exported.module()(given), model(given))


def test_onnxruntime_answers_the_same(program: Any):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, exported = program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(exported, dynamo=True, verbose=False, optimize=False)  # which takes minutes
    session = onnxruntime.InferenceSession(
        converted.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]
    for sizes in ((5, 9), (2, 5)):
        given = inputs(*sizes)
        flat = [each.numpy() for batch in given.values() for each in batch.values()]
        answers = session.run(None, dict(zip(names, flat, strict=True)))
        for (name, wanted), found in zip(model(given).items(), answers, strict=True):
            close = {"rtol": 1e-4, "atol": 1e-5, "msg": lambda text, name=name: f"{name}: {text}"}
            assert_close(torch.from_numpy(found), wanted, **close)


@pytest.mark.parametrize(("rows", "title"), [(LENGTHS, "keeps"), (NO_ONNX, "choices")])
def test_the_page_tells_what_cannot_and_why(rows: dict[str, tuple[str, str]], title: str):
    table = PAGE.partition(f"| recipe | {title} | why |\n| --- | --- | --- |\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [f"| {name} | {what} | {why} |" for name, (what, why) in rows.items()]


def test_the_trained_model_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    section = PAGE.partition("## A trained model\n")[2].partition("\n## ")[0]
    code = textwrap.dedent("\n".join(line for line in section.splitlines() if line.startswith("    ") or not line))
    (tmp_path / "weights").symlink_to(PAGES.parent / "weights")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, names := {"torch": torch, "nn": nn, "rg": rg, "Dim": Dim})
    images = torch.rand(2, 1, 60, 60)
    (chances,) = names["session"].run(None, {"image": images.numpy()})
    assert_close(torch.from_numpy(chances), names["model"](images), rtol=1e-4, atol=1e-5)
