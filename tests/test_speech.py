"""Features of sound, sounds from files, strings of takes, and the errors of transcripts."""

import io
import itertools
import math
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import regard as rg
from regard.app.speech import decoding, sounds
from regard.app.speech.features import frame_count, log_mel, masked_bands, mel_filters
from regard.app.speech.growing import Growing
from regard.app.speech.networks import AHEAD, SHRINK, Local, Speller
from regard.app.speech.scoring import edits
from regard.app.speech.strings import FIRST, Strings, Takes
from regard.app.speech.transducer import Transducer


def wav_of(data: np.ndarray, rate: int = 8000, width: int = 2, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, width, rate, 0, "NONE", ""))
        out.writeframes(data.tobytes())
    return file.getvalue()


def takes(count: int = 8) -> Takes:
    labels = torch.arange(count) % 2
    lengths = [400 + 100 * n for n in range(count)]
    return Takes([torch.ones(n) for n in lengths], labels, torch.arange(count) // 4, 8000)


class TestFeatures:
    def test_a_tone_is_in_the_band_of_its_pitch(self):
        time = torch.arange(4000) / 8000
        for pitch in (300, 1000, 3000):
            bands = log_mel(torch.sin(2 * math.pi * pitch * time).unsqueeze(0), 8000, 40)[0].mean(0)
            middle = mel_filters(8000, 40, 256)[:, bands.argmax()].argmax() * 8000 / 256
            assert abs(float(middle) - pitch) < 0.1 * pitch + 32

    def test_each_frequency_is_shared_by_two_bands(self):
        filters = mel_filters(16000, 40, 512)
        inner = filters[3:-20].sum(-1)
        assert (filters >= 0).all() and inner.max() <= 1 + 1e-5 and inner[5:].min() > 0.9

    def test_silence_is_finite_and_frames_are_counted(self):
        found = log_mel(torch.zeros(2, 1000), 8000, 40)
        assert found.isfinite().all() and found.shape == (2, int(frame_count(torch.tensor(1000), 8000)), 40)

    def test_a_frame_knows_its_own_samples_alone(self):
        sound = torch.randn(1, 4000)
        changed = sound.clone()
        changed[:, 2000:] = 0
        ours, theirs = log_mel(sound, 8000, 40), log_mel(changed, 8000, 40)
        known = int(frame_count(torch.tensor(2000), 8000))
        assert_close(ours[:, :known], theirs[:, :known])
        assert not torch.equal(ours[:, known], theirs[:, known])

    def test_masks_hide_bands_and_nothing_else(self):
        masked = masked_bands(torch.ones(200, 3, 40), masks=2, widest=8)
        hidden = (masked == 0).all(1)
        assert torch.equal(hidden, (masked == 0).any(1)) and 0 < hidden.sum(-1).max() <= 16


class TestSounds:
    def test_widths_and_channels(self):
        values = np.array([0.5, -0.25, 0.0, 0.125])
        for width, dtype in ((2, "<i2"), (4, "<i4")):
            data = wav_of((values * 2 ** (8 * width - 1)).astype(dtype), width=width)
            assert_close(sounds.sound_in(data, "a.wav").samples, torch.tensor(values).float())
        eight = wav_of((values * 128 + 128).astype(np.uint8), width=1)
        assert_close(sounds.sound_in(eight, "a.wav").samples, torch.tensor(values).float())
        whole = (values * 2**23).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
        assert_close(sounds.sound_in(wav_of(whole, width=3), "a.wav").samples, torch.tensor(values).float())
        stereo = sounds.sound_in(wav_of((values * 2**15).astype("<i2"), channels=2), "a.wav")
        assert_close(stereo.samples, torch.tensor([0.125, 0.0625]))

    def test_what_is_written_is_read(self):
        sound = torch.rand(500) * 2 - 1
        found = sounds.sound_in(sounds.wav(sound, 16000), "a.wav")
        assert found.rate == 16000
        assert_close(found.samples, sound, atol=1e-4, rtol=0)

    @pytest.mark.parametrize(("old", "new"), [(44100, 8000), (8000, 16000), (22050, 8000)])
    def test_another_rate_keeps_a_tone_and_drops_what_is_too_high(self, old: int, new: int):
        tone = lambda pitch, rate: torch.sin(2 * math.pi * pitch * torch.arange(rate // 2) / rate)  # noqa: E731
        low = sounds.resampled(sounds.Sound(tone(600, old), old), new)
        assert low.rate == new and len(low.samples) == new // 2
        assert (low.samples - tone(600, new))[200:-200].abs().max() < 3e-3
        if new < old:
            high = sounds.resampled(sounds.Sound(tone(new * 0.7, old), old), new).samples
            assert high[200:-200].abs().max() < 0.01

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (wav_of(np.zeros(0, "<i2")), "a.wav holds no sound: it has 0 samples"),
            (
                wav_of(np.zeros(8000 * 1800, "<i2")),
                "a.wav expected at most 300 seconds, but has 1,800: cut it at a pause",
            ),
            (wav_of(np.zeros(9000, "<i2"))[:9000], r"a.wav is damaged: it ends after 4,478 of 9,000 samples"),
            (wav_of(np.zeros(900, "<i2"), rate=100), "a.wav expected a rate from 2,000 to 400,000 samples a second"),
            (b"RIFF and nothing else", "a.wav is no"),
            (b"\x00" * 500, "a.wav is no"),
        ],
    )
    def test_bad_ones(self, data: bytes, message: str):
        with pytest.raises(ValueError, match=message):
            sounds.sound_in(data, "a.wav")

    def test_flac_is_read(self, tmp_path: Path):
        import soundfile  # pyright: ignore[reportMissingImports] - the extra speech

        sound = torch.rand(900) - 0.5
        soundfile.write(tmp_path / "a.flac", sound.numpy(), 16000)
        found = sounds.read_sound(tmp_path / "a.flac")
        assert found.rate == 16000
        assert_close(found.samples, sound, atol=1e-4, rtol=0)

    def test_clipping_is_noted(self):
        tone = 2 * torch.sin(torch.arange(800) / 5)
        assert "clipped" in sounds.Sound(tone.clamp(-1, 1), 8000).note and not sounds.Sound(tone / 4, 8000).note


def brute(heard: str, said: str) -> int:
    """The fewest edits, by all ways to pair letters in order."""
    best = len(heard) + len(said)
    for count in range(1, min(len(heard), len(said)) + 1):
        for ours in itertools.combinations(heard, count):
            for theirs in itertools.combinations(said, count):
                wrong = sum(a != b for a, b in zip(ours, theirs, strict=True))
                best = min(best, wrong + len(heard) + len(said) - 2 * count)
    return best


def test_edits_are_as_few_as_can_be():
    chance = np.random.default_rng(0)
    for _ in range(60):
        heard, said = ("".join(chance.choice(list("ab1"), chance.integers(0, 6))) for _ in range(2))
        found = edits(heard, said)
        assert sum(found) == brute(heard, said)
        assert found.insertions - found.deletions == len(heard) - len(said)


class TestStrings:
    def test_a_string_is_of_one_speaker_and_its_ends_are_where_sounds_end(self):
        strings = Strings(takes(), count=30, shortest=1, longest=3, seed=0)
        batch = strings.batch(torch.arange(30))
        for sound, samples, target, ends in zip(
            *(batch[n] for n in ("sound", "samples", "target", "ends")), strict=True
        ):
            count = int((target > 0).sum())
            assert (target[:count] >= FIRST).all() and (ends[:count].diff() > 0).all()
            assert 800 <= samples - ends[count - 1] <= 3200 and (sound[samples:] == 0).all()
            for end in ends[:count].tolist():
                loud = sound[end - 300 : end].square().mean().sqrt()
                assert loud > 2 * sound[end : end + 300].square().mean().sqrt()

    def test_they_are_fixed_by_a_seed_or_drawn_afresh(self):
        fixed, fresh = (Strings(takes(), 10, 1, 3, seed) for seed in (0, None))
        rows = torch.tensor([4, 7])
        assert torch.equal(fixed.batch(rows)["sound"], fixed.batch(rows)["sound"])
        ours, theirs = (fresh.batch(rows, torch.Generator().manual_seed(n))["sound"] for n in (0, 1))
        assert ours.shape != theirs.shape or not torch.equal(ours, theirs)

    def test_short_ones_come_first(self):
        batch = Strings(takes(), 10, 1, 5, seed=0).batch(torch.tensor([0, 3, 4]))
        growing = Growing(first=2, longest=5, steps=3)
        short = growing.shortened(batch)
        assert short["target"].shape == (3, 2) and (short["samples"][1:] == batch["ends"][1:, 1]).all()
        assert short["samples"][0] == batch["samples"][0]
        for _ in range(3):
            growing.count()
        assert growing.shortened(batch) is batch


class TestNetworks:
    def test_the_encoder_is_the_same_alone_and_in_a_batch(self):
        encoder = Local(40, 16).eval()
        frames, count = torch.randn(2, 90, 40), torch.tensor([90, 50])
        whole, places = encoder(frames, count)
        alone, (one,) = encoder(frames[1:, :50], count[1:])
        assert places.tolist() == [23, 13] and one == 13
        assert_close(whole[1, :13], alone[0])
        assert (whole[1, 13:] == 0).all()

    def test_a_place_knows_so_many_frames_behind_its_first_and_no_more(self):
        encoder = Local(8, 16).eval()
        frames, count = torch.randn(1, 160, 8), torch.tensor([160])
        states, _ = encoder(frames, count)
        for later, same in ((1, True), (0, False)):
            changed = frames.clone()
            changed[:, SHRINK * 10 + AHEAD + later :] += 1
            found, _ = encoder(changed, count)
            assert torch.equal(found[:, 10], states[:, 10]) == same

    def test_without_a_memory_the_next_symbol_is_told_from_what_is_read_alone(self):
        speller = Speller(6, 8, rg.Attention(score=rg.Additive(8, 8, 8)))
        read, query = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
        assert torch.equal(speller.tell(read, query), speller.tell(read, -query))

    def test_a_window_keeps_looks_near(self):
        speller = Speller(6, 8, rg.Attention(score=rg.Additive(8, 8, 8))).eval()
        speller.window = 3
        state = speller.begin(torch.randn(2, 20, 8), torch.tensor([20, 9]))
        words = torch.tensor([1, 1])
        for _ in range(5):
            before = state.place
            _, _, out, state = speller(words, state)
            places = torch.arange(out.weights.shape[-1])
            beyond = places > (before + 3).unsqueeze(-1)
            assert (out.weights[:, 0][beyond] == 0).all()


def test_a_transducer_finds_the_most_probable_text():
    """By its search, which keeps every beginning, of all texts of up to four symbols, whose sums `RNNT` knows."""
    for seed in range(5):
        torch.manual_seed(seed)
        part, states, count = Transducer(3, 8), torch.randn(1, 3, 8), torch.tensor([3])
        alone = torch.randn(1, 3, 3)
        with torch.no_grad():
            for weight in part.parameters():
                weight.mul_(3)
            part.telling.bias[0] += 4
            texts = [text for n in range(5) for text in itertools.product((1, 2), repeat=n)]
            totals = {text: float(part.alignment(states, alone, count, _of(text)).log_z) for text in texts}
            assert part.best(states[0], alone[0], size=1000) == max(totals, key=lambda text: totals[text])


def test_a_transducer_learns_what_is_said_and_says_several_symbols_at_a_place():
    torch.manual_seed(0)
    part, states, alone = Transducer(6, 16), torch.randn(2, 4, 16), torch.zeros(2, 4, 6)
    count, target = torch.tensor([4, 2]), torch.tensor([[3, 4, 5], [5, 4, 3]])  # three symbols at two places
    optimiser = torch.optim.Adam(part.parameters(), 0.03)
    for _ in range(150):
        optimiser.zero_grad()
        (-part.alignment(states, alone, count, target).log_z.sum()).backward()
        optimiser.step()
    assert [each.tolist() for each in part.greedy(states, alone, count)] == target.tolist()
    with torch.no_grad():
        assert [part.best(states[n, :k], alone[n, :k], 3) for n, k in enumerate((4, 2))] == [(3, 4, 5), (5, 4, 3)]


def _of(text: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([text], dtype=torch.long).reshape(1, -1)


def test_prefixes_are_the_most_probable_text():
    log_probs = torch.randn(4, 3, dtype=torch.float64).mul(2).log_softmax(-1)
    totals: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=4):
        text = tuple(decoding.said(torch.tensor(path)).tolist())
        chance = math.exp(sum(float(log_probs[t, symbol]) for t, symbol in enumerate(path)))
        totals[text] = totals.get(text, 0) + chance
    assert decoding.prefixes(log_probs, size=50) == max(totals, key=lambda text: totals[text])
