"""Runs that go to the Hub of Hugging Face and come back."""

import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest

import regard
from regard.app import cli, hub
from regard.app.training.errors import Failure

pytestmark = pytest.mark.unchecked
WEIGHTS = Path(__file__).parent.parent / "weights" / "ram-28-6.safetensors"
NAME = "somebody/digits"


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub's layout, in which a repository lies as if it had been downloaded; no network."""
    home = tmp_path / "home"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(home))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    kept = huggingface_hub.snapshot_download

    def download(name: str, **options: Any) -> str:
        return kept(name, cache_dir=home / "hub", local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return home / "hub"


def laid(cache: Path, folder: Path, commit: str = "0" * 40) -> None:
    """Files as the Hub's cache keeps them: blobs, and links to them by the name of the commit."""
    repository = cache / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    for each in (repository / "blobs", repository / "refs", snapshot):
        each.mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    for n, file in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(file, repository / "blobs" / str(n))
        os.symlink(repository / "blobs" / str(n), snapshot / file.name)


def test_there_and_back(tmp_path: Path, at_home: Path, capsys: pytest.CaptureFixture):
    up = tmp_path / "up"
    assert cli.main(["push", str(WEIGHTS), NAME, "--licence", "apache-2.0", "--out", str(up)]) == 0
    assert capsys.readouterr().out.split() == ["README.md", "config.yaml", "model.safetensors"]
    laid(at_home, up)
    found = regard.load(f"hub:{NAME}")
    assert found.config == regard.load(WEIGHTS).config
    assert cli.main(["evaluate", f"hub:{NAME}", "--help"]) == 0
    assert not [file for file in hub.fetched(NAME).iterdir() if file.is_symlink()]


def test_the_card_says_what_it_is(tmp_path: Path):
    hub.write_folder(WEIGHTS, tmp_path, NAME, "apache-2.0")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: regard\n") and "license: apache-2.0" in card
    assert "recurrent visual attention" in card and "regard train glimpse --" in card
    assert f'regard.load("hub:{NAME}")' in card and "| attention | hard |" in card


def test_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    seen: dict[str, Any] = {}
    monkeypatch.setattr(huggingface_hub, "create_repo", lambda name, **options: seen.update(name=name, **options))

    def upload(repo_id: str, folder_path: str, commit_message: str) -> str:
        seen["files"] = sorted(os.listdir(folder_path))
        return f"https://example.org/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    assert cli.main(["push", str(WEIGHTS), NAME, "--private"]) == 0
    assert capsys.readouterr().out == f"https://example.org/{NAME}\n"
    assert seen == {
        "name": NAME,
        "private": True,
        "exist_ok": True,
        "files": ["README.md", "config.yaml", "model.safetensors"],
    }


def test_what_cannot_be(tmp_path: Path, at_home: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(Failure, match="hub:somebody/digits could not be fetched"):
        regard.load(f"hub:{NAME}")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "README.md").write_text("not a run")
    laid(at_home, empty)
    with pytest.raises(Failure, match=r"hub:somebody/digits is not a run: it has no config\.yaml"):
        regard.load(f"hub:{NAME}")
    assert cli.main(["push", str(WEIGHTS), "digits"]) == 2
    assert "regard push expected USER/NAME, but got 'digits'" in capsys.readouterr().err


def test_the_weights_that_come_along(capsys: pytest.CaptureFixture):
    assert cli.main(["list", "--weights"]) == 0
    assert "weights/ram-28-6.safetensors" in capsys.readouterr().out
