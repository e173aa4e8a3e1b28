"""From the bytes of a recording to the int16 samples that a program takes: the only audio decoding there is.

Validation, the training cache, evaluation and the service all call `read_sound`, so none can differ. Travels in Bentos.
"""

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.common.errors import BadExampleError

if TYPE_CHECKING:
    from soundfile import SoundFile

FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST")  # as libsndfile calls them
SUPPORTED = "WAV, FLAC, MP3, OGG, Opus, AIFF, AU, CAF and NIST are read"
EXTENSIONS = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".sph"})
ACCEPT = "audio/*"  # what the form of a service takes
SAMPLE_RATES = (4_000, 192_000)  # Hz: below, no speech is left; above, no microphone delivers anything
MAX_CHANNELS = 8  # mixed down; a file with more is something else than a recording of one scene
MIN_SECONDS = 0.01  # one frame of the features
MAX_PEAK = 4.0  # of full scale: floats above it are integers that nobody scaled
# Bytes, in libsndfile's log.
TRUNCATED = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_SIZE = (
    0x7FFF0000  # bytes that a header states, or more, where it was written to a pipe, which cannot be rewound
)
MAX_MP3_PADDING = 4_608  # samples that an MP3 may have less than its header says: encoder delay and padding


@dataclass(frozen=True)
class Sound:
    """What a file's header says, and its samples, the channels mixed."""

    rate: int  # Hz
    channels: int
    samples: NDArray[np.float32]  # (T,), full scale is 1

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def read_sound(payload: bytes, sample_rate: int, max_seconds: float) -> NDArray[np.int16]:
    """(T,) int16 mono of a whole file at `sample_rate` Hz: the mean of its channels, resampled by soxr.

    Raises BadExampleError saying why it cannot be used.
    """
    return as_int16(resample(open_sound(payload, max_seconds), sample_rate))


def open_sound(payload: bytes, max_seconds: float) -> Sound:
    """The decoded file at its own rate. A file that its header says to be too long is refused before it is unpacked.

    Raises BadExampleError: empty, no sound, truncated, too short or long, NaN, a rate or channels out of range.
    """
    import soundfile

    if not payload:
        raise BadExampleError("empty file (0 bytes)")
    try:
        with soundfile.SoundFile(_BytesFile(payload)) as file:
            _check_header(file, max_seconds)
            _check_not_truncated(file.extra_info)
            samples = file.read(int(max_seconds * file.samplerate) + 1, dtype="float32", always_2d=True)
            header_frames, file_format, rate = file.frames, file.format, file.samplerate
    except soundfile.LibsndfileError as error:
        raise BadExampleError(_decoding_error(error.error_string)) from error
    if len(samples) < min(header_frames - MAX_MP3_PADDING * (file_format == "MP3"), int(max_seconds * rate)):
        raise BadExampleError(
            f"truncated: {len(samples)} of {header_frames} samples can be read; deliver the whole file"
        )
    return Sound(rate, samples.shape[1], _checked_samples(samples, rate, max_seconds).mean(axis=1))


def resample(sound: Sound, sample_rate: int) -> NDArray[np.float32]:
    """(T,) float32 at `sample_rate` Hz."""
    import soxr

    if sound.rate == sample_rate:
        return sound.samples
    return np.asarray(soxr.resample(sound.samples, sound.rate, sample_rate, quality="HQ"), np.float32)


def as_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Full scale 1 -> 32767; 16-bit files come out as they went in."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def pad_or_trim(samples: NDArray[np.int16], length: int) -> NDArray[np.int16]:
    """(length,) samples: a shorter sound in the middle of zeros, of a longer one the stretch with the most energy."""
    padding = length - len(samples)
    if padding >= 0:
        return np.pad(samples, (padding // 2, padding - padding // 2))
    energy = np.concatenate([[0], np.cumsum(samples.astype(np.int64) ** 2)])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return samples[start : start + length]


def _check_header(file: "SoundFile", max_seconds: float) -> None:
    if file.format not in FORMATS:
        raise BadExampleError(f"a {file.format} file; {SUPPORTED}")
    low, high = SAMPLE_RATES
    if not low <= file.samplerate <= high:
        raise BadExampleError(f"sample rate {file.samplerate} Hz; {low} to {high} Hz are read: resample it")
    if file.channels > MAX_CHANNELS:
        raise BadExampleError(f"{file.channels} channels; up to {MAX_CHANNELS} are mixed to one: mix it down")
    seconds = file.frames / file.samplerate
    if seconds > max_seconds:
        raise BadExampleError(f"{seconds:.1f} s long; at most {max_seconds:g} s are read (max_seconds): cut it")


def _checked_samples(samples: NDArray[np.float32], rate: int, max_seconds: float) -> NDArray[np.float32]:
    """(T, channels) as they are, if they are a sound."""
    if not len(samples):
        raise BadExampleError("no sound: a header without samples")
    if len(samples) < MIN_SECONDS * rate:
        raise BadExampleError(f"{len(samples) / rate:.4f} s of sound; at least {MIN_SECONDS} s needed")
    if len(samples) > max_seconds * rate:
        raise BadExampleError(f"longer than {max_seconds:g} s (max_seconds): cut it")
    peak = float(np.abs(samples).max())
    if not np.isfinite(peak):
        raise BadExampleError("holds NaN or infinite samples; write finite numbers within -1 and 1")
    if peak > MAX_PEAK:
        raise BadExampleError(f"samples up to {peak:.0f}; floating-point sound lies within -1 and 1: scale it")
    return samples


def _check_not_truncated(log: str) -> None:
    """libsndfile reads a WAV, AIFF or AU file that breaks off as if it were a shorter one; only its log says so."""
    truncated = TRUNCATED.search(log)
    if truncated and int(truncated[1]) < UNKNOWN_SIZE and int(truncated[2]) < int(truncated[1]):
        raise BadExampleError(
            f"truncated: {truncated[2]} of {truncated[1]} bytes of sound are there; deliver the whole file"
        )


def _decoding_error(reason: str) -> str:
    if "not recognised" in reason or "regular file" in reason or "unimplemented" in reason:
        return f"not a sound ({SUPPORTED})"
    return f"damaged sound: {' '.join(reason.split()).rstrip('.')}"


class _BytesFile(io.BytesIO):
    """A file in memory; where a damaged header points before its start, it is read from its start."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: len(self.getbuffer())}[whence]
        return super().seek(max(0, start + offset))
