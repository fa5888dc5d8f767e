"""Trained models on the Hub of Hugging Face: a run goes up as its weights, its configuration, its metrics and a card
made of these, and comes back by its name, `hub:USER/NAME`. No code goes up or comes back."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from regard.app.text.reading import printable
from regard.app.training.config import files, read_config
from regard.app.training.errors import Failure
from regard.app.training.metrics import Row, best_row, read_metrics
from regard.recipes.base import first_paragraph

PREFIX = "hub:"
"""Before the name of a repository, where a run may stand."""
KEPT = ("config.yaml", "model.safetensors", "metrics.csv")
"""The files of a run that go up and come back."""


def card(run: Path, name: str, licence: str, recipe: Any = None) -> str:
    """The README.md of a model: what it is, what it reaches, how it was trained and how it is used, from the run."""
    found, config = read_config(run, recipe)
    best = best_row(read_metrics(run), found.METRIC) if run.is_dir() else None
    fields = "\n".join(f"| {key} | {value} |" for key, value in vars(config).items())
    head = f"---\nlibrary_name: regard\ntags:\n- attention\n- {found.name}\n"
    head += f"license: {licence}\n---\n" if licence else "---\n"
    command = " ".join([f"regard train {found.name}", *(f"--{key} {value}" for key, value in changed(config).items())])
    return f"""{head}
# {printable(name)}

{first_paragraph(found.about)}

Trained by regard, a library of soft and hard attention for PyTorch, with the data `{config.data}`:

    {command}

{reached(best)}
It answers by

    regard predict {PREFIX}{name} INPUT...

or in Python by `regard.load("{PREFIX}{name}").predict([...])`. Weights and configuration are data:
nothing of them is run.

| setting | value |
| --- | --- |
{fields}
"""


def changed(config: Any) -> dict[str, Any]:
    """The settings that are not as usual."""
    usual = type(config)()
    return {key: value for key, value in vars(config).items() if getattr(usual, key) != value}


def reached(best: Row | None) -> str:
    """The metrics of the epoch whose weights these are."""
    if best is None:
        return ""
    rows = "\n".join(f"| {key} | {value:.4g} |" for key, value in best.items())
    return f"Its best epoch:\n\n| metric | value |\n| --- | --- |\n{rows}\n"


def write_folder(run: Path, folder: Path, name: str, licence: str, recipe: Any = None) -> list[str]:
    """Writes what goes up, and gives the names of the files. Raises Failure if there is no such run, or it has no
    weights yet."""
    config, weights = files(run)
    text = card(run, name, licence, recipe)
    if not weights.is_file():
        raise Failure(f"{run} has no weights yet: {weights.name} comes with the first epoch.")
    folder.mkdir(parents=True, exist_ok=True)
    for source, kept in zip((config, weights, run / "metrics.csv"), KEPT, strict=True):
        if source.is_file():
            shutil.copyfile(source, folder / kept)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return sorted(file.name for file in folder.iterdir())


def push(run: Path, name: str, licence: str, private: bool, recipe: Any = None) -> str:
    """Uploads a run to a repository USER/NAME, which is made if it is not there; gives its address. Raises Failure if
    that cannot be done."""
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        write_folder(run, Path(folder), name, licence, recipe)
        try:
            hub.create_repo(name, private=private, exist_ok=True)
            return str(hub.upload_folder(repo_id=name, folder_path=folder, commit_message=f"The run {run.name}"))
        except Exception as error:  # one of many, from several libraries
            raise Failure(f"{name} could not be uploaded: {_first_line(error)}.") from error


def found(run: str | Path) -> Path:
    """The path of a run, fetched from the Hub if that is what its name says.

    >>> found("runs/glimpse/hard-seed0").name
    'hard-seed0'
    """
    return fetched(str(run).removeprefix(PREFIX)) if str(run).startswith(PREFIX) else Path(run)


def fetched(name: str) -> Path:
    """The folder of a run that is kept on the Hub, downloaded once; without a network, what was downloaded before.

    Raises Failure if there is no such repository within reach, or it is no run.
    """
    hub = _hub()
    try:
        snapshot = Path(hub.snapshot_download(name, allow_patterns=list(KEPT)))
    except Exception as error:
        raise Failure(f"{PREFIX}{name} could not be fetched: {_first_line(error)}.") from error
    folder = Path(hub.constants.HF_HOME) / "regard" / name.replace("/", "--") / snapshot.name
    if not (snapshot / KEPT[0]).is_file():
        raise Failure(f"{PREFIX}{name} is not a run: it has no {KEPT[0]}.")
    _copied(snapshot, folder, KEPT)
    return folder


def _copied(source: Path, folder: Path, names: Iterable[str]) -> None:
    """Files behind links, as files: no link in a run is followed. A copy is complete or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in names:
        if (source / each).is_file() and not (folder / each).exists():
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as part, open(source / each, "rb") as stream:
                shutil.copyfileobj(stream, part)
            Path(part.name).replace(folder / each)


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__)


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
    except ImportError as error:
        raise Failure("the Hub needs the extra hub: pip install 'regard[hub]'.") from error
    return huggingface_hub
