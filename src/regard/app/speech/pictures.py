"""Where a model that hears looked, as pictures with their sounds."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import regard as rg
from regard.app.report.report import Picture
from regard.app.report.sound_figures import heard
from regard.app.report.text_figures import png
from regard.app.speech.answering import text
from regard.app.speech.decoding import greedy
from regard.app.speech.features import frame_count, log_mel
from regard.app.speech.networks import BEHIND
from regard.app.speech.scoring import edits
from regard.app.speech.sounds import wav
from regard.app.text.vocabulary import BEGIN

PLAYED = 8
"""Seconds of a sound that a page holds, at most."""


def pictures(model: Any, batch: Mapping[str, Tensor]) -> list[Picture]:
    """Of each sound what was written, and where each of its symbols looked; with the sound."""
    spelled = greedy(model, batch)
    looks = aligned(model, batch, spelled)
    return [_picture(model, {name: each[n] for name, each in batch.items()}, *each) for n, each in
            enumerate(zip(spelled, looks, strict=True))]  # fmt: skip


@torch.no_grad()
def aligned(model: Any, batch: Mapping[str, Tensor], spelled: list[Tensor]) -> list[Tensor | None]:
    """How much each symbol of texts looked at each place, (L, K); None where nothing looks."""
    states, count = model(batch)
    if model.transducer is not None:
        texts = pad_sequence(spelled, batch_first=True)
        said = model.transducer.alignment(states, model.aligning(states), count, texts).mean  # (B, L, K)
        rows = zip(said, count.tolist(), spelled, strict=True)
        return [each[: len(row), :n] if len(row) else None for each, n, row in rows]
    if model.speller is None:
        log_probs = model.aligned(states)
        rows = zip(log_probs, count.tolist(), spelled, strict=True)
        return [rg.ctc(row)(each[:n]).mean.mT[row] if len(row) else None for each, n, row in rows]
    if model.speller.attention is None:
        return [None] * len(count)
    state, weights = model.speller.begin(states, count), []
    before = pad_sequence([torch.cat((row.new_tensor([BEGIN]), row)) for row in spelled], batch_first=True)
    for words in before[:, :-1].unbind(1):
        _, _, out, state = model.speller(words, state)
        weights.append(out.weights[:, 0] if out.z is None else out.positions.indicator(out.z)[:, 0])
    if not weights:
        return [None] * len(count)
    whole = torch.stack(weights, 1)  # (B, L, K)
    return [each[: len(row), : n + BEHIND] for each, row, n in zip(whole, spelled, count.tolist(), strict=True)]


def _picture(model: Any, one: Mapping[str, Tensor], spelled: Tensor, weights: Tensor | None) -> Picture:
    sound, said = one["sound"][: int(one["samples"])], one["target"][one["target"] > 0]
    frames = log_mel(sound.unsqueeze(0), model.rate, model.config.bands)[
        0, : int(frame_count(one["samples"], model.rate))
    ]
    seconds, ours, theirs = len(sound) / model.rate, text(model, spelled.tolist()), text(model, said.tolist())
    names = [text(model, [symbol]) for symbol in spelled.tolist()]
    ends = (one["ends"][: len(said)] / model.rate).tolist()
    figure = heard((frames - model.mean) / model.scale, weights, names, seconds, ends)
    wrong = edits(spelled.tolist(), said.tolist())
    known = "as it is said" if ours == theirs else f"where “{theirs}” is said: {_in_words(*wrong)}"
    title = f"Heard as “{ours}”{f', {known}' if len(said) else ''}."
    about = f"{seconds:.1f} seconds of sound, and below them where each symbol of “{ours}” looked."
    return Picture(title, about, png(figure), sound=wav(sound[: PLAYED * model.rate], model.rate))


def _in_words(insertions: int, deletions: int, substitutions: int) -> str:
    found = {"too many": insertions, "missed": deletions, "taken for others": substitutions}
    return ", ".join(f"{count} {what}" for what, count in found.items() if count)
