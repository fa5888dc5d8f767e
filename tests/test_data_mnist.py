import gzip
import hashlib
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regard.app.data import digits, images_to_test, load, mnist
from regard.app.data.pack import pack, thin, write_idx


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Idx files of 40 training and 20 test images; the first pixels of an image tell its number."""
    for name in mnist.NAMES:
        count = 40 if "train" in name else 20
        numbers = torch.arange(count, dtype=torch.uint8)
        images = numbers[:, None, None].expand(-1, 28, 28) + 1
        write_idx(tmp_path / f"{name}.gz", images if "images" in name else numbers % 4)
    return tmp_path


def numbers(split: Any) -> set[int]:
    return set((split.images[:, 0, 0] - 1).tolist())


def test_a_folder_becomes_splits_and_validation_is_held_out_of_training(folder: Path):
    splits = digits(folder, canvas=30, clutter=0)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (36, 4, 20)
    assert numbers(splits.train) | numbers(splits.valid) == set(range(40))
    assert sorted(splits.valid.batch(torch.arange(4))["label"].tolist()) == [0, 1, 2, 3]
    assert splits.classes == ("0", "1", "2", "3")
    assert splits.shape == (1, 30, 30) == tuple(splits.test.batch(torch.arange(2))["image"].shape[1:])
    assert splits.describe == (
        f"MNIST, the idx files of {folder}: 36 training, 4 validation and 20 test images, "
        "on 30x30 pixels with 0 pieces of clutter"
    )
    assert numbers(digits(folder).valid) == numbers(splits.valid)


def test_training_is_fresh_and_the_rest_is_fixed(folder: Path):
    splits, first = digits(folder), torch.arange(4)
    for split, fresh in ((splits.train, True), (splits.valid, False), (splits.test, False)):
        once, again = split.batch(first)["box"], split.batch(first)["box"]
        assert torch.equal(once, again) is not fresh
    assert not torch.equal(splits.valid.batch(first)["box"], splits.test.batch(first)["box"])


def test_unzipped_files_and_the_usual_subfolders_are_found(folder: Path):
    for part in ("mnist", "MNIST/raw"):
        place = folder / "above" / part.replace("/", "_") / part
        place.mkdir(parents=True)
        for name in mnist.NAMES:
            (place / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
        found = mnist.read_folder(folder / "above" / part.replace("/", "_"))
        assert all(torch.equal(a, b) for a, b in zip(found, mnist.read_folder(folder), strict=True))


def test_a_missing_folder_is_named(tmp_path: Path):
    message = f"data folder {tmp_path}/no does not exist; expected 'embedded', 'hub', a folder of the MNIST idx files "
    with pytest.raises(ValueError, match=re.escape(message)):
        load(tmp_path / "no")


def test_a_missing_file_is_named_with_all_that_is_looked_for(folder: Path):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    message = (
        f"MNIST file t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz is not in {folder}, nor in its subfolders "
        f"mnist and MNIST/raw; the four files looked for are {', '.join(mnist.NAMES)}; "
        f"pictures would be in {folder}/train/CLASS"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        digits(folder)


@pytest.mark.parametrize("keep", [0, 5, 30, -1])
def test_a_truncated_gzip_file_is_named(folder: Path, keep: int):
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:keep])
    reason = "is empty" if keep == 0 else "is not a whole gzip file: "
    with pytest.raises(ValueError, match=re.escape(f"{file} {reason}")):
        digits(folder)


def test_damage_inside_a_gzip_file_is_named(folder: Path):
    file = folder / "train-images-idx3-ubyte.gz"
    data = bytearray(file.read_bytes())
    data[40:60] = bytes(20)
    file.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(f"{file} is not a whole gzip file: ")):
        digits(folder)


@pytest.mark.parametrize(("size", "lacking"), [(16 + 40 * 784 - 1, 1), (16, 40 * 784), (10, None)])
def test_a_truncated_idx_file_is_named(folder: Path, size: int, lacking: int | None):
    file = folder / "train-images-idx3-ubyte"
    zipped = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.decompress(zipped.read_bytes())[:size])
    header = "" if lacking is None else re.escape("but its header says [40, 28, 28]")
    with pytest.raises(ValueError, match=re.escape(f"{file} is truncated or damaged: {size} bytes, ") + header):
        digits(folder)


def test_a_file_of_another_kind_is_named(folder: Path):
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    message = f"{file} is not an MNIST file of images (N, Y, X): it starts with 0x00000801, not 0x00000803"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        digits(folder)


@pytest.mark.parametrize(("name", "labels"), [("train", 39), ("t10k", 21), ("train", 0)])
def test_numbers_of_images_and_labels_that_differ_are_named(folder: Path, name: str, labels: int):
    write_idx(folder / f"{name}-labels-idx1-ubyte.gz", torch.zeros(labels, dtype=torch.uint8))
    images = 40 if name == "train" else 20
    message = f"the {name} files in {folder} hold {images} images but {labels} labels"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        digits(folder)


def test_the_sample_is_what_its_readme_says():
    rows = re.findall(r"^\| (\S+\.gz) .*\| ([\d,]+) \| `(\w{64})` \|$", (mnist.SAMPLE / "README.md").read_text(), re.M)
    assert {name for name, _, _ in rows} == {f"{name}.gz" for name in mnist.NAMES}
    for name, size, digest in rows:
        data = (mnist.SAMPLE / name).read_bytes()
        assert hashlib.sha256(gzip.decompress(data)).hexdigest() == digest
        assert len(data) == int(size.replace(",", ""))
    assert sum(file.stat().st_size for file in mnist.SAMPLE.iterdir()) < 2e6


def test_the_sample_is_every_sixth_and_every_fifth_of_the_real_files(data_dir: Path):
    full, sample = mnist.read_folder(data_dir / "mnist"), mnist.read_folder(mnist.SAMPLE)
    assert (len(full.images), len(full.test_images)) == (60_000, 10_000)
    assert torch.equal(sample.images, full.images[::6])
    assert torch.equal(sample.labels, full.labels[::6])
    assert torch.equal(sample.test_images, full.test_images[::5])
    assert torch.equal(sample.test_labels, full.test_labels[::5])
    assert all(torch.equal(a, b) for a, b in zip(thin(full), sample, strict=True))


def test_packing_the_same_files_twice_gives_the_same_bytes(folder: Path):
    for target in ("one", "two"):
        pack(folder, folder / target)
    for name in mnist.NAMES:
        once, twice = (folder / target / f"{name}.gz" for target in ("one", "two"))
        assert once.read_bytes() == twice.read_bytes()
    assert mnist.read_folder(folder / "one").images[:, 0, 0].tolist() == [1, 7, 13, 19, 25, 31, 37]
    assert mnist.read_folder(folder / "one").test_images[:, 0, 0].tolist() == [1, 6, 11, 16]


def test_the_real_files_make_54000_6000_and_10000(data_dir: Path):
    splits = load(data_dir, canvas=28, clutter=0)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (54_000, 6_000, 10_000)
    assert splits.test.batch(torch.arange(5))["label"].tolist() == [7, 2, 1, 0, 4]


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the hub's two libraries: what is fetched is the folder's images, as png in rows of a table."""
    found = mnist.read_folder(folder)
    parts = {"train": (found.images, found.labels), "test": (found.test_images, found.test_labels)}

    def png(image: torch.Tensor) -> dict[str, bytes]:
        Image.fromarray(np.asarray(image)).save(file := io.BytesIO(), "png")
        return {"bytes": file.getvalue()}

    def read_table(name: str) -> dict[str, SimpleNamespace]:
        images, labels = parts[name.removeprefix("cache/mnist/").removesuffix("-00000-of-00001.parquet")]
        columns = {"image": [png(image) for image in images], "label": labels.tolist()}
        return {key: SimpleNamespace(to_pylist=lambda rows=rows: rows) for key, rows in columns.items()}

    def hf_hub_download(repository: str, name: str, repo_type: str) -> str:
        assert (repository, repo_type) == ("ylecun/mnist", "dataset")
        return f"cache/{name}"

    parquet, fetch = SimpleNamespace(read_table=read_table), SimpleNamespace(hf_hub_download=hf_hub_download)
    modules = {"pyarrow": SimpleNamespace(parquet=parquet), "pyarrow.parquet": parquet, "huggingface_hub": fetch}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fetch


def test_the_hub_gives_what_the_files_hold(hub: SimpleNamespace, folder: Path):
    fetched, read = mnist.read_hub(), mnist.read_folder(folder)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(fetched, read, strict=True))
    assert load("hub").describe.startswith("MNIST, ylecun/mnist on the Hugging Face hub: 36 training, 4 validation")


def test_the_hub_out_of_reach_is_one_sentence(hub: SimpleNamespace):
    def fail(*_, **__):
        raise ConnectionError("first line\nsecond line")

    hub.hf_hub_download = fail
    message = r"^data 'hub' could not fetch ylecun/mnist \(ConnectionError\); is this machine online\?$"
    with pytest.raises(ValueError, match=message):
        load("hub")


@pytest.mark.parametrize("missing", ["huggingface_hub", "pyarrow.parquet"])
def test_the_hub_without_its_extra_says_what_to_install(
    hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, missing: str
):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"^data 'hub' needs the extra hub: pip install 'regard\[hub\]'$"):
        load("hub")


def test_the_test_part_alone_needs_no_other(folder: Path):
    whole = digits(folder, canvas=60)
    for file in folder.glob("train*"):
        file.unlink()
    alone = images_to_test(folder, tuple("0123456789"), (1, 60, 60))
    assert (len(alone.train), len(alone.valid)) == (0, 0) and alone.shape == (1, 60, 60)
    indices = torch.arange(len(whole.test))
    assert torch.equal(alone.test.batch(indices)["image"], whole.test.batch(indices)["image"])
    assert alone.describe.startswith(f"MNIST, the idx files of {folder}: {len(indices):,} test images, on 60x60 pixels")


def test_digits_that_were_not_learned_are_refused():
    with pytest.raises(ValueError, match=r"^the test labels of MNIST, .* go up to 9, but there are 2 classes$"):
        images_to_test("embedded", ("ant", "bee"), (1, 60, 60))
    with pytest.raises(
        ValueError, match=r"^digits are grey on a square, but the images that were learned are of \(3, 6"
    ):
        images_to_test("embedded", tuple("0123456789"), (3, 60, 60))
