"""The experiment translate: that rows say what runs did, that links are those of words, and what is kept."""

import gzip
import importlib
import json
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml

from regard.app.cli import main
from regard.app.data import Pairs
from regard.app.data.generators.dates import dates
from regard.app.prediction import load
from regard.app.report.matrix import Matrix
from regard.app.text import translating
from regard.app.text.vocabulary import Characters, subwords
from regard.recipes import translate

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
TINY = {"hidden": 8, "subwords": 60, "epochs": 1, "batch": 20, "learning_rate": 0.01, "heads": 2}
COUNTS = {"train": 60, "val": 10, "test_2016_flickr": 12}
KNOWN = dates(2, seed=0)[1]
"""Words of the English and French sentences of the training part."""


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with dates for sentences in `data`, and results and weights of its own."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    loaded = importlib.import_module("translate")
    for seed, (part, count) in enumerate(COUNTS.items()):
        words, figures = dates(count, seed)
        for language, texts in (("de", words), ("en", figures), ("fr", figures)):
            write(tmp_path / "data" / "multi30k" / "tok" / f"{part}.lc.norm.tok.{language}.gz", texts)
            write(tmp_path / "data" / "multi30k" / "raw" / f"{part}.{language}.gz", map(str.title, texts))
    for part, words in (("train", KNOWN), ("valid", ["of", "it", "'s", "&"])):
        row = {"src_words": words, "tgt_words": words, "alignment": [[n, n] for n in range(len(words))]}
        write(tmp_path / "data" / "word_alignments" / part / "en-fr.hansards.jsonl.gz", [json.dumps(row)])
    for size in ("comparison", "full"):
        write_config(tmp_path, size, TINY)
    write_config(tmp_path, "comparison-hard", {"draws": 3})
    monkeypatch.setattr(loaded, "HERE", tmp_path)
    monkeypatch.setattr(loaded, "RESULTS", tmp_path / "translate.json")
    monkeypatch.setattr(loaded, "WEIGHTS", tmp_path / "weights")
    return loaded


def write(file: Path, lines) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def write_config(folder: Path, name: str, fields: dict[str, object]) -> None:
    (folder / "translate").mkdir(exist_ok=True)
    (folder / "translate" / f"{name}.yaml").write_text(yaml.safe_dump(fields))


def run(experiment: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> list[dict]:
    words = [
        "translate.py",
        "--data",
        str(folder / "data"),
        "--runs",
        str(folder / "runs"),
        "--precision",
        "32-true",  # not every processor has LSTMs in bfloat16
        "--threads",
        "1",
        *arguments,
    ]
    monkeypatch.setattr("sys.argv", words)
    experiment.main()
    return json.loads(experiment.RESULTS.read_text())["rows"]


def test_a_row_of_three_seeds_and_cased_text_and_its_weights(experiment, monkeypatch, tmp_path: Path, capsys):
    (row,) = run(experiment, monkeypatch, tmp_path, "--size", "full", "--attention", "additive")
    assert (row["pair"], row["size"], row["attention"], row["seeds"]) == ("de-en", "full", "additive", [0, 1, 2])
    assert all(len(row[name]) == 3 for name in experiment.MEASURES) and len(row["bleu_cased"]) == 1
    assert ["tok:none" in row["signatures"][0], "tok:13a" in row["signatures"][1]] == [True, True]
    assert row["alignment_error_rate"] == [] and row["bleu_by_length"]
    weights = tmp_path / "weights" / "translate-additive.safetensors"
    best = max(range(3), key=lambda seed: row["valid_bleu"][seed])
    model = load(tmp_path / "runs" / f"de-en-full-additive-tok-seed{best}").network
    for name, each in load(weights).network.state_dict().items():
        torch.testing.assert_close(each, model.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert translating.translated(load(weights).network, ["the 5th of December 2050"])[0]
    assert str(tmp_path) not in weights.with_suffix(".yaml").read_text()
    capsys.readouterr()
    assert main(["evaluate", str(weights), "--data", str(tmp_path / "data" / "multi30k" / "tok"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["test_perplexity"] == pytest.approx(row["perplexity"][best], rel=0.01)
    capsys.readouterr()
    monkeypatch.setattr(experiment.experiments, "train", None)
    run(experiment, monkeypatch, tmp_path, "--size", "full", "--attention", "additive")
    assert "de-en, full" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["translate.py", "--runs", str(tmp_path / "elsewhere"), "--json"])
    experiment.main()
    assert json.loads(capsys.readouterr().out)["rows"] == [row]


def test_weights_that_are_large_are_not_kept(experiment, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(experiment, "LARGEST", 1000)
    run(experiment, monkeypatch, tmp_path, "--size", "full", "--attention", "self", "--seed", "1")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    "weights", sorted((ROOT / "weights").glob("translate-*.safetensors")), ids=lambda file: file.stem
)
def test_the_weights_that_are_kept_translate(weights: Path):
    assert weights.stat().st_size < 20e6
    written = translating.translated(load(weights).network, ["ein hund springt über einen zaun .", ""])
    assert written == ["a dog jumps over a fence .", ""]


def test_where_some_runs_look_is_drawn(experiment, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(experiment, "SENTENCE", 3)
    drawn = []
    monkeypatch.setattr(experiment, "save_figure", lambda figure, file: drawn.append((figure, file)))
    which = ["--pair", "de-en", "--size", "comparison", "--seed", "0"]
    run(experiment, monkeypatch, tmp_path, *which, "--attention", "hard")
    run(experiment, monkeypatch, tmp_path, *which, "--attention", "self", "--alignments", "drawn.png")
    ((figure, file),) = drawn
    assert file == Path("drawn.png") and [axes.get_xlabel() for axes in figure.axes] == ["hard", "self"]
    words = dates(COUNTS["test_2016_flickr"], seed=2)[0][3].split()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [*words, "<end>"]


def test_en_fr_has_alignments_and_what_they_are_compared_with(experiment, monkeypatch, tmp_path: Path, capsys):
    (row,) = run(experiment, monkeypatch, tmp_path, "--pair", "en-fr", "--attention", "hard")
    assert 0 <= row["alignment_error_rate"][0] <= 100 and len(row["bleu"]) == 1
    pairs = experiment.scoring.hansards(tmp_path / "data")
    assert [pair.source for pair in pairs["alignment_error_rate_known"]] == [KNOWN]
    assert len(pairs["alignment_error_rate"]) == 2 and 0 <= row["alignment_error_rate_known"][0] <= 100
    config = tmp_path / "runs" / "en-fr-comparison-hard-tok-seed0" / "config.yaml"
    assert yaml.safe_load(config.read_text())["draws"] == 3, "an attention may have fields of its own"
    found = json.loads(experiment.RESULTS.read_text())["aligners"]
    assert [each["aligner"] for each in found] == ["at best", "diagonal", "IBM model 1"]
    assert found[1]["alignment_error_rate"] == found[1]["alignment_error_rate_known"] == 0, (
        "the links by hand are the diagonal here"
    )
    assert "IBM model 1" in capsys.readouterr().out


def test_breadth_is_the_mean_over_the_sentences(experiment, monkeypatch):
    split = Pairs(["a b"] * 65, ["c"] * 65, Characters(["a", "b", "c"]))
    sure, torn = (Matrix(["a", "b"], ["c"], torch.tensor([weights])) for weights in ([1.0, 0.0], [0.5, 0.5]))
    found = [[sure] * 63 + [torn], [torn]]
    monkeypatch.setattr(translate, "alignments", lambda model, source, target: found.pop(0)[: len(source)])
    assert experiment.scoring.breadth(None, split) == pytest.approx((63 + 2 + 2) / 65)


@pytest.mark.parametrize("tokenised", [True, False])
def test_bleu_is_that_of_all_sentences_and_of_buckets_by_length(experiment, tokenised: bool):
    scoring = experiment.scoring
    sources = ["a " * count for count in (1, 8, 9, 17, 18, 40)]
    targets = [f"there is a dog number {n} ." for n in range(6)]
    written = [*targets[:4], "there is no cat .", ""]
    split = SimpleNamespace(sources=sources, targets=targets, tokenised=tokenised)
    found = scoring.by_length(split, written)
    assert found == {
        "1-8": pytest.approx(100),
        "9-10": pytest.approx(100),
        "15-17": pytest.approx(100),
        "18-": found["18-"],
    }
    assert 0 < found["18-"] < 30
    whole = scoring.bleu(written, targets, tokenised)
    assert found["18-"] < whole["bleu"] < 100 and f"tok:{'none' if tokenised else '13a'}" in whole["signature"]
    same = scoring.bleu(["there is a dog here."], ["there is a dog here ."], tokenised)["bleu"]
    assert same < 99 if tokenised else same == pytest.approx(100)


def test_the_figure_has_a_line_for_each_that_is_finished(experiment):
    lengths = {"1-8": [30.0, 32.0, 34.0], "9-10": [20.0, 20.0, 20.0]}
    row = {"pair": "de-en", "size": "comparison", "attention": "none", "bleu_by_length": lengths}
    others = [
        {**row, name: value, "bleu_by_length": {"1-8": [1.0]}} for name, value in (("pair", "en-fr"), ("size", "full"))
    ]
    (axes,) = experiment.draw([row, *others]).axes
    lines = {line.get_label(): line for line in axes.containers}
    assert list(lines) == ["none"]
    line, caps, _ = lines["none"].lines
    assert list(line.get_ydata()) == [32, 20] and list(caps[0].get_ydata()) == [30, 20]


def test_every_length_is_in_one_bucket(experiment):
    names = [experiment.scoring.bucket(low, high) for low, high in pairwise(experiment.scoring.LENGTHS)]
    assert names == ["1-8", "9-10", "11-12", "13-14", "15-17", "18-"]


def test_links_are_of_words_and_none_is_to_the_end(experiment, monkeypatch):
    """The model is made to look at the word of the same number, but the last at the end: one row for each word."""
    asked = []

    def alignments(model, source, target):
        asked.extend(model.vocabulary.pieces(numbers[0].tolist()) for numbers in (source, target))
        weights = torch.eye(4)
        weights[2] = torch.tensor([0.1, 0.1, 0.2, 0.6])
        return [Matrix(["w"] * 4, ["w"] * 4, weights)]

    monkeypatch.setattr(translate, "alignments", alignments)
    pair = experiment.scoring.alignments.Pair(["it", "'s", "&"], ["c'", "est", "&"], {(0, 0)}, {(0, 0)})
    model = SimpleNamespace(vocabulary=subwords(["it &apos;s &amp;", "c&apos; est &amp;"], 60))
    assert experiment.scoring.links(model, pair) == {(0, 0), (1, 1)}
    assert ["".join(pieces) for pieces in asked] == ["▁it▁&apos;s▁&amp;<end>", "▁c&apos;▁est▁&amp;<end>"]


def test_every_run_of_the_issue_is_there_once(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    module = importlib.import_module("translate")
    jobs = list(module.jobs())
    assert len(jobs) == len(set(jobs)) == 18 + 2 * 4 + 7 + 17 + 2 * 3
    assert len({job.attention for job in jobs}) == 18
    for job in jobs:
        config = module.configuration(job, Path("data"))
        assert (config.attention, config.seed, config.data) == (job.attention, job.seed, f"data/multi30k/{job.text}")
        assert f"{config.source}-{config.target}" == job.pair
