"""Writes the tables of README.md and of docs/*.md from the JSON that benchmarks and experiments have left in their
folders `results`, and the README's pictures.

python docs/tables.py                                            the tables
python docs/tables.py runs/compare/glimpse/default/report.html   and the pictures of a report, which needs Chromium

A table stands between the marks `<!-- table: NAME -->` and `<!-- end of NAME -->`.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from regard.app.compare import summary
from regard.app.explaining import BETTER
from regard.app.results import mean_and_spread, printed
from regard.recipes.base import open_recipe

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results", ROOT / "experiments" / "results"
PICTURES = {"looks": ".looks article >> nth=0", "learning": "#learning"}

PAPER = {
    "28": {2: "3.79", 4: "1.54", 6: "1.12"},
    "60-translated": {4: "1.54", 6: "1.22", 8: "1.20"},
    "60-cluttered": {4: "4.96", 6: "4.08", 8: "4.04"},
    "100-cluttered": {4: "14.95", 6: "11.58", 8: "10.83"},
}
"""Mnih et al. 2014, the tables of section 4.1: the proceedings, and of 100x100 the first version."""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown, its numbers to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def compare(results: Mapping[str, Any]) -> str:
    """The five models side by side."""
    rows = results["rows"]
    measures = summary.measured(open_recipe(results["recipe"]).COLUMNS, rows)
    columns = summary.columns(measures, results["error_spread"], results["example"])
    lines = [
        [", ".join(filter(None, (column.name, column.unit))), *map(printed, cells)]
        for column, *cells in zip(columns, *(summary.cells(measures, row) for row in rows), strict=True)
    ]
    meanings = " ".join(f"*{column.name}*: {column.meaning}" for column in columns)
    return markdown(["", *(row["model"] for row in rows)], lines) + f"\n{meanings}\n"


def ram(results: Mapping[str, Any]) -> str:
    """The tables of Mnih et al.: hard attention, what it has to beat, and the paper."""
    rows = {(row["task"], row["glimpses"], row["model"]): row for row in results["rows"]}
    models = ("random", "fixed", "soft", "grid", "cnn")
    lines = []
    for task, glimpses in ((task, glimpses) for task, errors in PAPER.items() for glimpses in errors):
        ours = rows.get((task, glimpses, "hard"), {})
        others = [mean_and_spread(rows.get((task, glimpses, model), {}).get("error_percent")) for model in models]
        cells = [mean_and_spread(ours.get(name)) for name in ("error_percent", "error_percent_sampled")]
        pixels = f"{ours['pixels_read']:,.0f}" if ours else ""
        lines.append([task, str(glimpses), *cells, PAPER[task][glimpses], *others, pixels])
    head = ["task", "glimpses", "hard, %", "by sampled paths, %", "the paper, %", *(f"{model}, %" for model in models)]
    return markdown([*head, "pixels read"], lines)


def fewer(results: Mapping[str, Any]) -> str:
    """What the models of the last columns answer after fewer glimpses."""
    steps = (1, 2, 4, 6, 8)
    errors = {(row["case"], row["glimpses"]): [row["error_percent"]] for row in results["fixed"]}
    lines = [
        [case, *(mean_and_spread(errors.get((case, step))) for step in steps)]
        for case in dict.fromkeys(case for case, _ in errors)
    ]
    return markdown(["test error, %, after", *map(str, steps)], lines)


def ablation(results: Mapping[str, Any]) -> str:
    """What each part of the recipe bought."""
    lines = [
        [row["change"], mean_and_spread(row["valid_error_percent"]), mean_and_spread(row["on_digit_percent"])]
        for row in results["rows"]
    ]
    return markdown(["change", "validation error, %", "glimpses on the digit, %"], lines)


def variance(results: Mapping[str, Any]) -> str:
    """The gradient by every estimator."""
    budget = results["budget"]
    lines = [
        [
            row["estimator"],
            "unbiased" if row["unbiased"] else "biased",
            f"{row['bias']:.2f} ± {row['bias_error']:.2f}",
            *(
                "" if row[name] is None else f"{row[name]:.2f}"
                for name in ("signal_to_noise", "signal_to_noise_for_budget")
            ),
            f"{row['cost_evaluations']:,.0f}",
            f"{row['ms']:,.2f}",
        ]
        for row in results["rows"]
    ]
    head = ["estimator", "it says it is", "bias", "signal to noise", f"the same for {budget} evaluations of the cost"]
    return markdown([*head, "evaluations", "ms"], lines)


def growth(results: Mapping[str, Any]) -> str:
    """How the variance grows."""
    lines = [
        [
            f"{row['with']}, {row['values'][0]} to {row['values'][-1]}",
            row["case"],
            *(f"{row[name]:.2f} ± {row[f'{name}_error']:.2f}" for name in ("exponent", "relative_exponent")),
        ]
        for row in results["growth"]
    ]
    return markdown(["with", "case", "exponent of the variance", "of the variance over the signal"], lines)


def bench(results: Mapping[str, Any]) -> str:
    """What the harness of the benchmarks found."""
    lines = [
        [
            row["case"],
            row["peer"],
            f"{row['ratio']:.3g} ({' to '.join(f'{each:.3g}' for each in row['ratio_quartiles'])})",
            f"{row['ours_ms'] / row['limit_ms']:.3g}",
            *(f"{row[name]:,.1f}" for name in ("ours_peak_mb", "peer_peak_mb")),
        ]
        for row in results["rows"]
    ]
    return markdown(["case", "peer", "peer / ours", "ours / bound", "MB", "MB, peer"], lines)


def accurate(results: Mapping[str, Any]) -> str:
    """The same, with how far both sides are from float64."""
    lines = [
        [
            row["case"],
            row["peer"],
            f"{row['ratio']:.3g} ({' to '.join(f'{each:.3g}' for each in row['ratio_quartiles'])})",
            *(f"{row[name]:,.1f}" for name in ("ours_peak_mb", "peer_peak_mb")),
            *(", ".join(f"{each:.0e}" for each in row.get(name) or []) for name in ("ours_error", "peer_error")),
        ]
        for row in results["rows"]
    ]
    return markdown(["case", "peer", "peer / ours", "MB", "MB, peer", "error", "error, peer"], lines)


def parse(results: Mapping[str, Any]) -> str:
    """Parsers over trees and over single heads."""
    shares = ("uas", "las", "tree", "uas_without_punctuation")
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in results["rows"]:
        groups.setdefault((row["corpus"], row["size"], row["over"]), []).append(row)
    lines = [
        [
            f"{corpus}, {size}",
            over,
            str(len(seeds)),
            *(mean_and_spread([row[share] for row in seeds]) for share in shares),
        ]
        for (corpus, size, over), seeds in sorted(groups.items())
    ]
    return markdown(["treebank, network", "over", "seeds", "UAS", "LAS", "trees", "UAS without punctuation"], lines)


def answer(results: Mapping[str, Any]) -> str:
    """Question answering by simple and by structured attention."""
    lines = [
        [
            f"{row['task']}, {row['over']}",
            *(mean_and_spread(row[name]) for name in ("accuracy", "sequence")),
            *(f"{value:.1f}" for value in row["paper"]),
        ]
        for row in results["rows"]
    ]
    head = ["task, over", "right answers", "facts", "right answers, the paper", "facts, the paper"]
    return markdown(head, [[*line, *[""] * (len(head) - len(line))] for line in lines])


def translate(results: Mapping[str, Any]) -> str:
    """Translators, German to English: BLEU in three ways."""
    names = ("bleu", "bleu_greedy", "bleu_cased", "perplexity", "breadth")
    rows = [row for row in results["rows"] if row["pair"] == "de-en"]
    lines = [
        [
            f"{row['attention']}, {row['size']}",
            str(len(row["seeds"])),
            *(mean_and_spread(row[name]) for name in names),
            _core_minutes(row),
        ]
        for row in sorted(rows, key=lambda row: (row["size"], -statistics.fmean(row["bleu"] or [0])))
    ]
    head = ["attention, size", "seeds", "BLEU", "greedy", "cased", "perplexity", "words looked at", "core minutes"]
    signatures = dict.fromkeys(each for row in results["rows"] for each in row["signatures"])
    return markdown(head, lines) + "".join(f"\n`{each}`\n" for each in signatures)


def _core_minutes(row: Mapping[str, Any]) -> str:
    """What a run took on average: the minutes of one thread, twice those of two."""
    found = [seconds * threads / 60 for seconds, threads in zip(row["seconds"], row["threads"], strict=True)]
    return f"{statistics.fmean(found):.0f}" if found else ""


def links(results: Mapping[str, Any]) -> str:
    """Alignment error rates, English to French: attentions and what they are compared with."""
    rows = [row for row in results["rows"] if row["pair"] == "en-fr"]
    names = "alignment_error_rate", "alignment_error_rate_known"
    found = [(row["attention"], *(row[name] for name in names), row["bleu"]) for row in rows]
    others = [(row["aligner"], *([row[name]] for name in names), []) for row in results["aligners"]]
    lines = [
        [name, *map(mean_and_spread, values)]
        for name, *values in sorted([*found, *others], key=lambda line: statistics.fmean(line[1]))
    ]
    return markdown(["what links", "alignment error rate, %", "of known words, %", "BLEU, Multi30k"], lines)


def draw(results: Mapping[str, Any]) -> str:
    """The bounds of what paints."""
    names = ("nats", "reconstruction", "divergence")
    lines = [
        [
            f"{row['data']}, {row['model']}",
            str(len(row["seeds"])),
            *(mean_and_spread(row["metrics"][name], 1) for name in names),
            str(len(row["curve"][0])),
            f"{statistics.fmean(row['seconds']) / 60:.0f}",
        ]
        for row in results["rows"]
    ]
    return markdown(["images, model", "seeds", *names, "epochs", "minutes"], lines)


def trained(
    results: Mapping[str, Any],
    head: str,
    columns: Mapping[str, tuple[str, int]],
    datas: Sequence[str] = (),
    seconds: bool = False,
) -> str:
    """The rows of trained models, or those of some data: what they are, as `head` says; of each metric in `columns`,
    {name: (what it is called, digits)}, the mean and the spread over the seeds; and what they took to train."""
    lines = [
        [
            f"{row['data']}, {row['model']}" if "," in head else row["model"],
            str(len(row["seeds"])),
            *(mean_and_spread(row["metrics"].get(name), digits) for name, (_, digits) in columns.items()),
            f"{statistics.fmean(row['seconds']):.0f}" if seconds else f"{statistics.fmean(row['seconds']) / 60:.1f}",
        ]
        for row in results["rows"]
        if not datas or row["data"] in datas
    ]
    return markdown(
        [head, "seeds", *(name for name, _ in columns.values()), "seconds" if seconds else "minutes"], lines
    )


def recall(results: Mapping[str, Any], tasks: Sequence[str], lengths: Sequence[int]) -> str:
    """The wrong bits of machines with a memory on some tasks, from short sequences to long ones."""
    return trained(results, "task, addressing", {f"wrong_bits_{n}": (f"at {n}", 2) for n in lengths}, tasks)


BRACKET = {
    "f1": ("F1", 2),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "f1_evalb": ("F1 without punctuation", 2),
    "malformed_percent": ("malformed, %", 2),
    "tags_percent": ("parts of speech, %", 2),
}
CAPTION = {
    "bleu4": ("BLEU", 1),
    "exact_percent": ("exact, %", 1),
    "pointing_percent": ("pointing, %", 1),
    "entropy_nats": ("entropy, nats", 2),
    "movement": ("movement", 2),
    "places": ("places read", 2),
}
TAG = {
    "f1": ("F1", 2),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "accuracy": ("words", 2),
    "valid_f1": ("F1 in development", 2),
}
SAMPLING = {
    "error_percent": ("wrong, %", 1),
    "share_read_percent": ("read, %", 2),
    "covered_percent": ("digits covered, %", 1),
    "entropy_nats": ("entropy, nats", 2),
}
OWN_PICTURES = {
    "error_percent": ("wrong, %", 1),
    "train_error_percent": ("in training, %", 1),
    "pixels_read": ("read, %", 0),
}
MARKED = {
    "error_percent": ("wrong, %", 1),
    "pointing_percent": ("patches on a mark, %", 1),
    "covered_percent": ("slides where one is, %", 1),
    "share_read_percent": ("bytes read, %", 2),
}
BAGS = {
    "auc": ("AUC", 3),
    "error_percent": ("wrong, %", 1),
    "pointing_percent": ("weight of nines, %", 1),
}
SPEECH = {
    "digit_error_percent_10": ("wrong of 10, %", 1),
    "digit_error_percent_20": ("of 20, %", 1),
    "digit_error_percent_40": ("of 40, %", 1),
    "insertions_percent_40": ("too many of 40, %", 1),
    "deletions_percent_40": ("missed, %", 1),
    "substitutions_percent_40": ("taken for others, %", 1),
    "compared_percent_40": ("places compared, %", 0),
    "read_percent_40": ("read, %", 0),
    "latency_frames_40": ("late, frames", 0),
}
STITCH = {
    "error_percent": ("wrong, %", 1),
    "solved_percent": ("puzzles solved, %", 0),
    "placed_percent": ("pieces placed, %", 0),
    "fragments_joined": ("fragments joined, of 9", 0),
    "pixels_read": ("read, %", 1),
}
CLASSIFY = {"accuracy_percent": ("right, %", 1), "words_read": ("words read", 1)}
READ = {
    "accuracy_percent": ("right, %", 1),
    "short_percent": ("of short stories, %", 1),
    "long_percent": ("of long ones, %", 1),
    "words_read": ("words read", 1),
}
RATIONALE = {
    "accuracy_percent": ("right, %", 1),
    "share_read_percent": ("words read, %", 1),
    "precision": ("precision", 3),
    "token_f1": ("token F1", 3),
    "piece": ("words a piece", 0),
    "comprehensiveness": ("comprehensiveness", 3),
    "sufficiency": ("sufficiency", 3),
}
LANGUAGE = {
    "perplexity": ("perplexity", 1),
    "without_cache": ("without words again", 1),
    "valid_perplexity": ("to choose by", 1),
    "words_back": ("words back", 1),
    "entropy_nats": ("entropy, nats", 2),
    "epoch": ("epochs", 0),
}


HUGGINGFACE = {"accuracy_percent": ("right, %", 1), "words_looked_at": ("words looked at", 1)}


def faithfulness(results: Mapping[str, Any]) -> str:
    """Every metric of every glimpse model, beside chance and the truth, and how well it orders what is known."""
    columns = ("given", "random", "oracle", "tau")
    rows = [row for row in results["rows"] if row["recipe"] == "glimpse"]
    lines = [[row["model"], row["metric"], *(printed(row.get(name)) for name in columns)] for row in rows]
    return markdown(["glimpses", "metric", *columns], lines)


def interpretable(results: Mapping[str, Any]) -> str:
    """By how much each model's attention is better than a random order, seeds averaged, and what it pointed at."""
    models = dict.fromkeys((row["recipe"], row["model"]) for row in results["rows"])
    lines = [[f"{recipe}: {model}", *_gains(results["rows"], recipe, model)] for recipe, model in models]
    head = "attention", *BETTER, "pointing", "agreement", "permutation", "unread"
    return markdown(head, lines)


def _gains(rows: Sequence[Mapping[str, Any]], recipe: str, model: str) -> Iterable[str]:
    """The cells of a model: what each metric gains over a random order, and of other metrics what they are."""
    of = [row for row in rows if (row["recipe"], row["model"]) == (recipe, model)]
    for metric in (*BETTER, "pointing", "agreement", "permutation", "unread"):
        sign, found = BETTER.get(metric), [row for row in of if row["metric"] == metric]
        values = [row["given"] if sign is None else sign * (row["given"] - row["random"]) for row in found]
        yield mean_and_spread(values)


def trusted(results: Mapping[str, Any]) -> str:
    """The rank correlation of each metric with the truth, of each recipe: the mean over its models."""
    rows = [row for row in results["rows"] if "tau" in row]
    recipes = dict.fromkeys(row["recipe"] for row in rows)
    lines = []
    for recipe in recipes:
        of = [row for row in rows if row["recipe"] == recipe]
        taus = ([row["tau"] for row in of if row["metric"] == metric] for metric in BETTER)
        lines.append([recipe, str(len({(row["model"], row["seed"]) for row in of})), *map(mean_and_spread, taus)])
    return markdown(["recipe", "models", *BETTER], lines)


def speed(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Every benchmark in one line: the median ratio over its cases and peers, the least and the most, and its page."""
    tables = (bench, accurate)
    pages = {file.rpartition("/")[2]: page for page, file, made in TABLES.values() if made in tables}
    lines = []
    for name, found in results.items():
        ratios = [row["ratio"] for row in found["rows"] if "ratio" in row]
        page = pages.get(f"{name}.json", "").removeprefix("docs/")
        numbers = map(printed, (statistics.median(ratios), min(ratios), max(ratios)))
        lines.append([f"`{name}`", str(len(ratios)), *numbers, f"[{page}]({page})" if page else ""])
    return markdown(["regard bench", "cases", "median", "least", "most", "page"], lines)


TABLES: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], str]]] = {
    "compare": ("README.md", "compare.json", compare),
    "ram": ("docs/hard.md", "ram.json", ram),
    "caption": (
        "docs/captions.md",
        "experiments/caption.json",
        partial(trained, head="pictures, attention", columns=CAPTION),
    ),
    "captioning": ("docs/captions.md", "benchmarks/caption.json", bench),
    "draw": ("docs/draw.md", "experiments/draw.json", draw),
    "drawing": ("docs/draw.md", "benchmarks/draw.json", bench),
    "recall": (
        "docs/memory.md",
        "experiments/recall.json",
        partial(recall, tasks=("copy", "reverse"), lengths=(20, 120, 1000)),
    ),
    "associative": (
        "docs/memory.md",
        "experiments/recall.json",
        partial(recall, tasks=("associative",), lengths=(6, 12, 20)),
    ),
    "repeat": ("docs/memory.md", "experiments/recall.json", partial(recall, tasks=("repeat",), lengths=(10, 20))),
    "sampling": (
        "docs/images.md",
        "experiments/sampling.json",
        partial(trained, head="question, attention", columns=SAMPLING, datas=("majority", "max", "top", "several")),
    ),
    "marked": (
        "docs/images.md",
        "experiments/sampling.json",
        partial(trained, head="attention", columns=MARKED, datas=("slides",)),
    ),
    "bags": (
        "docs/images.md",
        "experiments/sampling.json",
        partial(trained, head="attention", columns=BAGS, datas=("bags",), seconds=True),
    ),
    "pictures": (
        "docs/images.md",
        "experiments/pictures.json",
        partial(trained, head="pictures, attention", columns=OWN_PICTURES),
    ),
    "stitch": ("docs/images.md", "experiments/stitch.json", partial(trained, head="pairs, model", columns=STITCH)),
    "slides": ("docs/images.md", "benchmarks/slides.json", bench),
    "memory": ("docs/memory.md", "memory.json", bench),
    "copying": ("docs/memory.md", "benchmarks/recall.json", bench),
    "classify": (
        "docs/reading.md",
        "experiments/classify.json",
        partial(trained, head="texts, model", columns=CLASSIFY, seconds=True),
    ),
    "classifying": ("docs/reading.md", "benchmarks/classify.json", bench),
    "rationale": (
        "docs/reading.md",
        "experiments/rationale.json",
        partial(trained, head="model", columns=RATIONALE, seconds=True),
    ),
    "read": ("docs/reading.md", "experiments/read.json", partial(trained, head="reader", columns=READ)),
    "reading": ("docs/reading.md", "benchmarks/read.json", bench),
    "language": (
        "docs/reading.md",
        "experiments/language.json",
        partial(trained, head="text, attention", columns=LANGUAGE),
    ),
    "speech": (
        "docs/speech.md",
        "experiments/speech.json",
        partial(trained, head="data, model", columns=SPEECH, seconds=True),
    ),
    "choosing": ("docs/reading.md", "benchmarks/rationale.json", bench),
    "telling": ("docs/reading.md", "benchmarks/language.json", bench),
    "huggingface": (
        "docs/transformers.md",
        "experiments/huggingface.json",
        partial(trained, head="attention", columns=HUGGINGFACE, seconds=True),
    ),
    "bridge": ("docs/transformers.md", "benchmarks/huggingface.json", bench),
    "faithfulness": ("docs/faithfulness.md", "experiments/faithfulness.json", faithfulness),
    "interpretable": ("docs/faithfulness.md", "experiments/faithfulness.json", interpretable),
    "trusted": ("docs/faithfulness.md", "experiments/faithfulness.json", trusted),
    "speed": ("docs/speed.md", "benchmarks/*.json", speed),
    "ablation": ("docs/hard.md", "ablation.json", ablation),
    "fewer": ("docs/hard.md", "early.json", fewer),
    "variance": ("docs/hard.md", "variance.json", variance),
    "growth": ("docs/hard.md", "variance.json", growth),
    "additive": ("docs/mechanisms.md", "additive.json", bench),
    "hardread": ("docs/mechanisms.md", "hardread.json", bench),
    "monotonic": ("docs/mechanisms.md", "monotonic.json", bench),
    "sparse": ("docs/mechanisms.md", "sparse.json", bench),
    "words": ("docs/translate.md", "words.json", bench),
    "structured": ("docs/structured.md", "structured.json", accurate),
    "alignment_kernels": ("docs/structured.md", "alignment_kernels.json", accurate),
    "parse": ("docs/structured.md", "parse.json", parse),
    "tag": ("docs/structured.md", "tag.json", lambda results: trained(results, "data, model", TAG, seconds=True)),
    "answer": ("docs/structured.md", "answer.json", answer),
    "constituency": ("docs/brackets.md", "constituency.json", accurate),
    "bracket": ("docs/brackets.md", "bracket.json", partial(trained, head="sentences, model", columns=BRACKET)),
    "translate": ("docs/translate.md", "translate.json", translate),
    "links": ("docs/translate.md", "translate.json", links),
}
"""{name: (page, its results, what writes it)}."""


def with_table(text: str, name: str, new: str) -> str:
    """The text with what stands between the two marks replaced."""
    begin, end = f"<!-- table: {name} -->\n", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return before + begin + new + end + rest.split(end)[1]


def found(file: str) -> Any:
    """What a file of results says, or all files of a folder by their names; a folder is told where two have a file of
    that name."""
    if "*" in file:
        return {each.stem: json.loads(each.read_text()) for each in sorted(ROOT.glob(file.replace("/", "/results/")))}
    if "/" in file:
        return json.loads((ROOT / file.replace("/", "/results/")).read_text())
    return next(json.loads((folder / file).read_text()) for folder in RESULTS if (folder / file).exists())


def write() -> None:
    """Writes every table into the page that it is on."""
    for name, (page, results, made) in TABLES.items():
        file = ROOT / page
        file.write_text(with_table(file.read_text(), name, made(found(results))))


def photograph(report: Path) -> None:
    """Pictures of two sections of a report, as a reader sees them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(report.resolve().as_uri())
        for name, place in PICTURES.items():
            page.locator(place).screenshot(path=ROOT / "docs" / "pictures" / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("report", nargs="*", type=Path, help="report.html of a comparison")
    reports = flags.parse_args().report
    write()
    for each in reports:
        photograph(each)
