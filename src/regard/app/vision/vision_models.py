"""Vision models of Hugging Face's transformers, whichever they are: pictures to the features of a grid of places."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.app.text.reading import printable


class VisionModel(nn.Module):
    """The last hidden state of a model, as a map.

    Of a transformer the tokens in front that stand for no place, such as one for the class, are dropped. A picture in
    [0, 1] is scaled by `scale`, less `mean`, by `deviation`, as the model's preprocessor says.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: nn.Module, scale: float, mean: Any, deviation: Any):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.as_tensor(mean).float().reshape(-1, 1, 1) / scale)
        self.register_buffer("deviation", torch.as_tensor(deviation).float().reshape(-1, 1, 1) / scale)

    def forward(self, pictures: Float[Tensor, "B 3 Y Y"]) -> Float[Tensor, "B D y x"]:
        """The features of square pictures in red, green and blue, in [0, 1]."""
        found = self.model(pixel_values=(pictures - self.mean) / self.deviation).last_hidden_state
        if found.ndim == 4:  # of a convolutional network
            return found
        rows = math.isqrt(found.shape[1])
        return found[:, -rows * rows :].transpose(1, 2).unflatten(2, (rows, rows))


def vision_model(name: str) -> tuple[VisionModel, int]:
    """The model in a folder, or of that name on the Hugging Face hub, and the side in pixels of the pictures it takes.

    The part of a larger model that sees is taken. Weights are read from safetensors alone, and no code that comes with
    a model is run. Raises ValueError where the extra `huggingface` is not installed, or there is no such model.
    """
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("features 'hf:' need the extra huggingface: pip install 'regard[huggingface]'") from error
    options = dict(trust_remote_code=False, local_files_only=Path(name).is_dir())
    try:
        with _quiet(transformers.logging):
            prepared = transformers.AutoImageProcessor.from_pretrained(name, backend="pil", **options)
            model, loaded = transformers.AutoModel.from_pretrained(
                name, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **options
            )
    except Exception as error:  # one of many, from several libraries
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the vision model {printable(name)} cannot be loaded: {printable(reason)}") from error
    _check(model, sorted(loaded["missing_keys"]), name)
    return _prepared(getattr(model, "vision_model", model), prepared), _side(prepared, name)


def _check(model: Any, missing: list[str], name: str) -> None:
    """Raises ValueError where weights are missing, but for those of a pooler, which nothing is read from: they are zero
    then, so that the same files always make the same network."""
    needed = [each for each in missing if "pooler" not in each]
    if needed:
        raise ValueError(f"the vision model {printable(name)} lacks {len(needed)} of its weights, such as {needed[0]}")
    for each in missing:
        model.get_parameter(each).data.zero_()


def _prepared(model: nn.Module, prepared: Any) -> VisionModel:
    scale = 255 * (prepared.rescale_factor if prepared.do_rescale else 1)
    if not getattr(prepared, "do_normalize", False):
        return VisionModel(model, scale, 0.0, 1.0)
    return VisionModel(model, scale, prepared.image_mean, prepared.image_std)


def _side(prepared: Any, name: str) -> int:
    """The side of the square that a preprocessor makes of a picture."""
    size = prepared.crop_size if getattr(prepared, "do_center_crop", False) else prepared.size
    known = size if isinstance(size, Mapping) else vars(size)
    sides = {each for side in ("height", "width", "shortest_edge") if (each := known.get(side))}
    if len(sides) != 1:
        raise ValueError(f"the vision model {printable(name)} expects pictures of {known}, but a square was expected")
    return int(sides.pop())


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without bars and remarks, which are the library's own."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
