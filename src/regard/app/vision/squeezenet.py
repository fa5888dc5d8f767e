"""SqueezeNet 1.0, which classifies photographs: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer
parameters and <0.5MB model size", table 1."""

import io
from pathlib import Path
from zipfile import BadZipFile

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from regard.app.text.reading import printable

SIDE = 227  # pixels
FILE = "squeezenet_v1.npz"
SQUEEZE = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}  # channels of each fire module, by its number
POOLED = (2, 5, 9)  # the modules that a max-pooling comes before
MEANS = (104.0, 117.0, 123.0)  # of blue, green and red, which are taken away


class Fire(nn.Module):
    """A fire module: few channels are squeezed out by a 1x1 convolution, then expanded by one of 1x1 and one of 3x3."""

    def __init__(self, channels: int, squeeze: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, 4 * squeeze, 1)
        self.expand3 = nn.Conv2d(squeeze, 4 * squeeze, 3, padding=1)

    def forward(self, found: Float[Tensor, "B c y x"]) -> Float[Tensor, "B d y x"]:
        """Both expansions, one after the other."""
        squeezed = self.squeeze(found).relu()
        return torch.cat([self.expand1(squeezed), self.expand3(squeezed)], 1).relu()


class SqueezeNet(nn.Module):
    """What fire9 finds in pictures of 227x227 pixels: 512 features of each of 13x13 places."""

    def __init__(self):
        super().__init__()
        self.conv1, channels = nn.Conv2d(3, 96, 7, stride=2), 96
        for number, squeeze in SQUEEZE.items():
            self.add_module(f"fire{number}", Fire(channels, squeeze))
            channels = 8 * squeeze
        self.conv10 = nn.Conv2d(channels, 1000, 1, padding=1)

    def forward(self, pictures: Float[Tensor, "B 3 227 227"]) -> Float[Tensor, "B 512 13 13"]:
        """The features of pictures in red, green and blue, in [0, 1]."""
        means = torch.tensor(MEANS, device=pictures.device)[:, None, None]
        found = self.conv1(255 * pictures.flip(1) - means).relu()
        for number in SQUEEZE:
            if number in POOLED:
                found = max_pool2d(found, 3, stride=2, ceil_mode=True)
            found = self.get_submodule(f"fire{number}")(found)
        return found

    def classes(self, pictures: Float[Tensor, "B 3 227 227"]) -> Float[Tensor, "B 1000"]:
        """How well each of ImageNet's classes fits each picture."""
        return self.conv10(self(pictures)).relu().mean((2, 3))


def squeezenet(path: Path) -> SqueezeNet:
    """The network with the weights of an .npz file of NumPy's, or of squeezenet_v1.npz in a folder.

    Raises ValueError where there is no such file, or it holds something else.
    """
    import numpy as np

    file = path / FILE if path.is_dir() else path
    network = SqueezeNet()
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
        network.load_state_dict(weights)
    except OSError as error:
        raise ValueError(f"SqueezeNet's weights {printable(file)} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError, EOFError, BadZipFile, RuntimeError) as error:
        raise ValueError(f"{printable(file)} does not hold the weights of SqueezeNet 1.0") from error
    return network
