"""Sounds in a report: what they look like and a player to hear them, all inside the page. Needs no torch."""

import io
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.common.audio.decoding import open_sound, resample
from models.common.reporting.image import data_uri

RATE = 16_000  # Hz in the report
SHOWN_SECONDS = 20.0  # of a sound; more would make the page heavy
WINDOW, BANDS = 512, 96  # samples of a spectrum, rows of the picture
MAX_WIDTH = 480  # px
DYNAMIC_RANGE = 80.0  # dB from black to white
MIN_FREQUENCY = 60.0  # Hz: the lowest row
COLOURS = ((4, 4, 20), (58, 18, 98), (146, 38, 104), (222, 74, 74), (251, 155, 60), (252, 246, 190))  # dark to light
MAX_SECONDS = 3600.0  # the sound was checked when it was added


def sound_card(payload: bytes, caption: str, title: str = "") -> str:
    """A <figure>: spectrogram, player and `caption` (HTML) of one recording; `title` is shown by the pointer."""
    samples = load_shown(payload)
    body = f"{spectrogram(samples)}{player(samples)}<figcaption>{caption}</figcaption>"
    return f'<figure title="{escape(title, quote=True)}">{body}</figure>'


def sound_grid(cards: list[str]) -> str:
    """Cards side by side, as wide as a player needs."""
    return f'<div class="grid" style="grid-template-columns:repeat(auto-fill,minmax(14rem,1fr))">{"".join(cards)}</div>'


def load_shown(payload: bytes) -> NDArray[np.float32]:
    """The recording at RATE, as long as it is shown."""
    return resample(open_sound(payload, MAX_SECONDS), RATE)[: int(SHOWN_SECONDS * RATE)]


def spectrogram(samples: NDArray[np.float32]) -> str:
    """An <img>: time from left to right, low to high frequencies from bottom to top on the mel scale."""
    loudness = _power_spectrum(samples)
    rows = np.interp(_mel_spaced(), np.linspace(0, RATE / 2, len(loudness)), np.arange(len(loudness)))
    picture = loudness[rows.round().astype(int)[::-1]]
    shade = np.clip((picture - picture.max() + DYNAMIC_RANGE) / DYNAMIC_RANGE * 255, 0, 255).astype(np.uint8)
    image = Image.fromarray(shade)
    image.putpalette(_palette().tobytes())
    out = io.BytesIO()
    image.save(out, "png", optimize=True)
    style = "aspect-ratio:auto;width:100%;height:5.5rem;object-fit:fill"
    return f'<img alt="spectrogram" style="{style}" src="{data_uri(out.getvalue(), "image/png")}">'


def player(samples: NDArray[np.float32]) -> str:
    """An <audio> with controls; MP3, so that a page of them stays small."""
    import soundfile

    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", RATE, 1, format="MP3") as file:
        file.write(np.clip(samples, -1, 1))
    style = "width:100%;height:2rem;margin-top:.3rem"
    return f'<audio controls preload="none" style="{style}" src="{data_uri(out.getvalue(), "audio/mpeg")}"></audio>'


def _power_spectrum(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """(bins, columns) dB of the power spectrum, at most MAX_WIDTH columns."""
    padded = np.pad(samples.astype(np.float64), WINDOW // 2)
    hop = max(WINDOW // 8, -(-len(samples) // MAX_WIDTH))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop]
    power: NDArray[Any] = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    return np.asarray(10 * np.log10(power.T + 1e-10))


def _mel_spaced() -> NDArray[np.float64]:
    """Frequency of each row, the lowest first."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (MIN_FREQUENCY, RATE / 2))
    return np.asarray(700 * (10 ** (np.linspace(low, high, BANDS) / 2595) - 1))


def _palette() -> NDArray[np.uint8]:
    """(256, 3) RGB."""
    anchors = np.linspace(0, 255, len(COLOURS))
    return np.stack([np.interp(np.arange(256), anchors, channel) for channel in np.array(COLOURS).T], 1).astype(
        np.uint8
    )
