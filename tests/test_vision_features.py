"""Features of frozen networks: what they find, and how they are kept."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from regard.app.data import captioned
from regard.app.training.errors import Failure
from regard.app.vision import features
from regard.app.vision.features import Frozen, kept_features, open_features
from regard.app.vision.squeezenet import FILE, SqueezeNet


def tiny(seed: int = 0) -> Frozen:
    torch.manual_seed(seed)
    return Frozen(nn.Conv2d(3, 8, 4, stride=4), side=16, name="tiny")


def pictures(count: int = 20) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 20, 20), dtype=torch.uint8)


class Counted:
    """Pictures that count how often they are asked for."""

    def __init__(self, images: torch.Tensor):
        self.images, self.asked = images, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        self.asked += len(indices)
        return self.images[indices]


class TestFrozen:
    """Pictures to features."""

    def test_places_are_row_by_row_and_features_those_of_the_network(self):
        frozen, images = tiny(), torch.rand(2, 3, 16, 16)
        assert frozen.grid == (4, 4) and frozen.size == 8
        assert_close(frozen.of(images)[:, 4 * 2 + 3], frozen.network(images)[:, :, 2, 3])
        assert not frozen.of(images).requires_grad

    def test_bytes_grey_and_other_sizes(self):
        frozen, images = tiny(), pictures(2)[:, :, :16, :16]
        assert_close(frozen.of(images), frozen.of(images.float() / 255))
        assert_close(frozen.of(images[:, :1]), frozen.of(images[:, :1].repeat(1, 3, 1, 1)))
        large = images.repeat_interleave(4, 2).repeat_interleave(4, 3)
        assert_close(frozen.of(large), frozen.of(images), atol=0.2, rtol=0)
        assert not torch.allclose(frozen.of(large), frozen.of(images.flip(0)), atol=0.2, rtol=0)

    def test_the_digest_is_that_of_the_weights(self):
        assert tiny().digest == tiny().digest != tiny(1).digest
        tiny().require(tiny().digest)
        message = "^tiny is another network than the one whose features the run has learned from$"
        with pytest.raises(ValueError, match=message):
            tiny().require(tiny(1).digest)

    @pytest.mark.parametrize("name", ["", "squeezenet", "squeezenet:", "vgg:x"])
    def test_other_names_are_refused(self, name: str):
        with pytest.raises(ValueError, match=rf"^features are squeezenet:PATH or hf:FOLDER_OR_NAME, not '{name}'$"):
            open_features(name)


class TestKept:
    """Features in a file."""

    def test_they_are_computed_once(self, tmp_path: Path):
        frozen, images = tiny(), Counted(pictures())
        found = kept_features(frozen, images, tmp_path / "train.npy")
        assert found.shape == (20, 16, 8) and found.dtype == np.float16 and isinstance(found, np.memmap)
        assert_close(torch.from_numpy(found.copy()).float(), frozen.of(images.images), rtol=1e-3, atol=1e-3)
        images.asked = 0
        again = kept_features(frozen, images, tmp_path / "train.npy")
        assert (again == found).all() and images.asked == features.CHECKED
        assert (np.load(tmp_path / "train.npy") == found).all() and os.listdir(tmp_path) == ["train.npy"]

    def test_none_of_no_pictures(self, tmp_path: Path):
        assert kept_features(tiny(), pictures(0), tmp_path / "train.npy").shape == (0, 16, 8)
        assert kept_features(tiny(), pictures(1), tmp_path / "train.npy").shape == (1, 16, 8)

    @pytest.mark.parametrize("what", ["network", "number", "pictures", "order", "cut", "longer", "garbage", "empty"])
    def test_what_is_of_another_is_computed_anew(self, tmp_path: Path, what: str):
        file, images, frozen = tmp_path / "train.npy", pictures(), tiny()
        kept_features(frozen, images, file)
        data = file.read_bytes()
        damage = {"cut": data[:-1000], "longer": data + b"x", "garbage": b"x" * len(data), "empty": b""}
        file.write_bytes(damage.get(what, data))
        frozen = tiny(1) if what == "network" else frozen
        images = {"number": images[:-1], "pictures": pictures(), "order": images.flip(0)}.get(what, images)
        found = kept_features(frozen, images, file)
        assert_close(torch.from_numpy(found.copy()).float(), frozen.of(images), rtol=1e-3, atol=1e-3)

    def test_what_is_not_finished_leaves_no_file(self, tmp_path: Path):
        class Broken(Counted):
            def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
                if 15 in indices.tolist():
                    raise ValueError("picture 15.png cannot be read")
                return super().__getitem__(indices)

        with pytest.raises(ValueError, match=r"^picture 15\.png cannot be read$"):
            kept_features(tiny(), Broken(pictures()), tmp_path / "train.npy")
        assert os.listdir(tmp_path) == []

    def test_a_folder_that_is_not_there(self, tmp_path: Path):
        message = f"^{re.escape(str(tmp_path))}/x/train.npy could not be written \\(No such file or directory\\).$"
        with pytest.raises(Failure, match=message):
            kept_features(tiny(), pictures(), tmp_path / "x" / "train.npy")

    def test_what_no_half_precision_holds_is_the_largest(self, tmp_path: Path):
        frozen = tiny()
        nn.init.constant_(frozen.network.bias, 1e6)
        found = kept_features(frozen, pictures(), tmp_path / "train.npy")
        assert (found == np.finfo(np.float16).max).all()

    def test_a_line_now_and_then(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
        monkeypatch.setattr(features, "now_and_then", lambda: lambda: True)
        kept_features(tiny(), pictures(), tmp_path / "train.npy")
        assert capsys.readouterr().err.splitlines()[-1] == "tiny: features of 20 of 20 pictures"


def test_a_split_of_pictures_with_captions_is_read_by_its_kept_features(tmp_path: Path):
    for n in range(20):
        Image.new("RGB", (20, 20), (n, 10 * n, 0)).save(tmp_path / f"{n}.png")
    (tmp_path / "captions.csv").write_text("".join(f"{n}.png,picture {n}\n" for n in range(20)))
    split = captioned(tmp_path).train
    pictures, frozen = split.batch(torch.arange(len(split)))["picture"], tiny()
    found = split.with_features(kept_features(frozen, split.pixels, tmp_path / "train.npy"))
    batch = found.batch(torch.tensor([7, 2]), torch.Generator().manual_seed(0))
    assert_close(batch["features"], frozen.of(pictures[[7, 2]]), rtol=1e-3, atol=1e-3)
    assert batch["index"].tolist() == [7, 2] and "picture" not in batch


class TestSqueezeNet:
    """SqueezeNet 1.0."""

    def test_it_has_the_parameters_and_the_places_of_the_paper(self):
        network = SqueezeNet()
        assert sum(each.numel() for each in network.parameters()) == 1_248_424
        frozen = Frozen(network, 227, "squeezenet")
        assert frozen.grid == (13, 13) and frozen.size == 512

    def test_its_file_is_read_and_another_refused(self, tmp_path: Path):
        weights = {name: each.half().numpy() for name, each in SqueezeNet().state_dict().items()}
        np.savez(tmp_path / FILE, **weights)
        one, same = open_features(f"squeezenet:{tmp_path}"), open_features(f"squeezenet:{tmp_path / FILE}")
        assert one.digest == same.digest
        file = tmp_path / "other.npz"
        for content in (dict(list(weights.items())[1:]), {**weights, "conv1.bias": np.zeros(3)}, {"a": np.array([{}])}):
            np.savez(file, **content)
            with pytest.raises(ValueError, match=r"other\.npz does not hold the weights of SqueezeNet 1\.0$"):
                open_features(f"squeezenet:{file}")
        file.write_bytes((tmp_path / FILE).read_bytes()[:100_000])
        with pytest.raises(ValueError, match=r"other\.npz does not hold the weights of SqueezeNet 1\.0$"):
            open_features(f"squeezenet:{file}")
        with pytest.raises(ValueError, match=r"^SqueezeNet's weights .*nowhere\.npz cannot be read: No such file or "):
            open_features(f"squeezenet:{tmp_path}/nowhere.npz")

    def test_photographs_of_dogs_are_those_of_dogs(self, data_dir: Path):
        network = open_features(f"squeezenet:{data_dir / 'squeezenet'}").network
        split = captioned(data_dir / "flickr8k_1000", canvas=227).train
        said = [sum("dog" in text for text in texts) for texts in split.captions]
        dogs, others = (
            [n for n, count in enumerate(said) if wanted(count)][:20] for wanted in (lambda c: c > 3, lambda c: not c)
        )
        shares = []
        for chosen in (dogs, others):
            likeliest = network.classes(split.pixels[torch.tensor(chosen)].float() / 255).argmax(1)
            shares.append(((likeliest >= 151) & (likeliest <= 268)).float().mean().item())  # ImageNet's breeds
        assert 0.5 < shares[0] < 0.9 and shares[1] < 0.1


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="needs the extra huggingface")


def saved(transformers, folder: Path, kind: str = "ViT", processor: bool = True, **options) -> Path:
    """A tiny model with random weights, as transformers saves it."""
    torch.manual_seed(0)
    small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, patch_size=8)
    if kind == "ResNet":
        small = dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    config = getattr(transformers, f"{kind}Config")(**small, **options)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    if processor:
        made = transformers.models.vit.image_processing_pil_vit.ViTImageProcessorPil
        made(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(
            folder
        )
    return folder


class TestVisionModels:
    """Models of Hugging Face, tiny and saved here."""

    def test_a_transformer_without_the_token_of_the_class(self, transformers, tmp_path: Path):
        folder = saved(transformers, tmp_path, image_size=32)
        frozen, images = open_features(f"hf:{folder}"), pictures(3).repeat(1, 1, 2, 2)[:, :, :32, :32]
        assert frozen.grid == (4, 4) and frozen.size == 16 and frozen.side == 32
        prepared = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")(images, return_tensors="pt")
        theirs = transformers.ViTModel.from_pretrained(folder)(**prepared).last_hidden_state
        assert_close(frozen.of(images), theirs[:, 1:])
        assert frozen.digest == open_features(f"hf:{folder}").digest

    def test_a_convolutional_network(self, transformers, tmp_path: Path):
        frozen = open_features(f"hf:{saved(transformers, tmp_path, 'ResNet')}")
        assert frozen.grid == (4, 4) and frozen.size == 16
        assert frozen.of(pictures(3)).shape == (3, 16, 16)

    def test_the_part_that_sees_of_a_larger_model(self, transformers, tmp_path: Path):
        small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        seeing = transformers.CLIPVisionConfig(**small, patch_size=8, image_size=32)
        reading = transformers.CLIPTextConfig(**small, vocab_size=100)
        both = transformers.CLIPConfig(text_config=reading.to_dict(), vision_config=seeing.to_dict())
        saved(transformers, tmp_path, image_size=32)
        transformers.CLIPModel(both).save_pretrained(tmp_path)
        assert open_features(f"hf:{tmp_path}").of(pictures(3)).shape == (3, 16, 16)

    def test_weights_that_are_not_there_are_refused_but_for_those_not_read(self, transformers, tmp_path: Path):
        from safetensors.torch import load_file, save_file

        file = saved(transformers, tmp_path, image_size=32) / "model.safetensors"
        weights = load_file(file)
        read = {name: each for name, each in weights.items() if "pooler" not in name}
        assert len(read) == len(weights) - 2
        save_file(read, file, {"format": "pt"})
        one, same = (open_features(f"hf:{tmp_path}") for _ in range(2))
        assert one.digest == same.digest
        save_file(dict(list(read.items())[3:]), file, {"format": "pt"})
        with pytest.raises(ValueError, match=rf"^the vision model {tmp_path} lacks 3 of its weights, such as "):
            open_features(f"hf:{tmp_path}")

    def test_what_is_no_model_is_refused(self, transformers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        loaded = rf"^the vision model {re.escape(str(tmp_path))}\S* cannot be loaded: "
        with pytest.raises(ValueError, match=loaded):
            open_features(f"hf:{tmp_path}")
        with pytest.raises(ValueError, match=r"^the vision model no/such cannot be loaded: "):
            open_features("hf:no/such")
        folder = saved(transformers, tmp_path / "bare", image_size=32, processor=False)
        with pytest.raises(ValueError, match=loaded):
            open_features(f"hf:{folder}")
        folder = saved(transformers, tmp_path / "pickled", image_size=32)
        torch.save(transformers.ViTModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ValueError, match=loaded):
            open_features(f"hf:{folder}")

    def test_code_beside_a_model_is_not_run(self, transformers, tmp_path: Path):
        folder, ran = saved(transformers, tmp_path, image_size=32), tmp_path / "ran"
        config = (folder / "config.json").read_text().replace('"vit"', '"mine"', 1)
        auto = '{"auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"},'
        (folder / "config.json").write_text(config.replace("{", auto, 1))
        (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w')\n")
        with pytest.raises(ValueError, match=rf"^the vision model {tmp_path} cannot be loaded: "):
            open_features(f"hf:{folder}")
        assert not ran.exists()

    def test_a_model_of_text_is_refused(self, transformers, tmp_path: Path):
        saved(transformers, tmp_path, image_size=32)
        small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50)
        transformers.BertModel(transformers.BertConfig(**small)).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=rf"^hf:{tmp_path} finds no features in a picture of 32x32 pixels$"):
            open_features(f"hf:{tmp_path}")

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(__import__("sys").modules, "transformers", None)
        message = r"^features 'hf:' need the extra huggingface: pip install 'regard\[huggingface\]'$"
        with pytest.raises(ValueError, match=message):
            open_features("hf:anything")
