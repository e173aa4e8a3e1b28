"""Speech made on the spot by espeak-ng (the wheel `espeakng_loader` carries it): many voices, no recordings needed.

espeak-ng keeps its state in global variables that nothing resets: the same sentence twice gives two waveforms. So the
library is loaded for every sentence and unloaded after it, which takes 3 ms with the speaking.
"""

import _ctypes
import ctypes
import functools
import threading
import wave
from pathlib import Path
from tempfile import TemporaryDirectory

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

VOICES = [
    "en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029", "en",
    "en-us+f1", "en-us+f2", "en-us+f3", "en-us+f4", "en-us+f5", "en-gb-x-rp+f3", "en-gb-scotland+f2",
    "en-us+m1", "en-us+m2", "en-us+m3", "en-us+m4", "en-us+m5", "en-us+m6", "en-us+m7", "en-us+m8", "en-gb-x-rp+m3",
    "en-us+klatt", "en-us+klatt2", "en-us+croak", "en-us+whisper", "en-us+steph", "en-us+adam", "en-us+john",
]  # fmt: skip
ALIASES = {"en-gb": "en"}  # espeak-ng knows a voice by its file's name
SYNCHRONOUS = 2  # audio_output: the callback has had every sample when espeak_Synth returns
DONT_EXIT = 0x8000  # espeak_Initialize's option: a missing data folder is an error code, not the end of the process
RATE, PITCH = 1, 3  # espeak_PARAMETER
UTF8 = 1
SEED = 1  # of the noise in its fricatives
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_one_at_a_time = threading.Lock()


def say(text: str, voice: str = "en-us", speed: int = 175, pitch: int = 50) -> tuple[NDArray[np.int16], int]:
    """`text` spoken, mono, and its sample rate (22,050 Hz). The same arguments always give the same samples.

    voice: one of VOICES, or any of espeak-ng's, with a variant: "en-us+f3". speed: words a minute, 80 to 450.
    pitch: 0 to 99. ValueError for a voice that there is not.
    """
    language, *variant = voice.split("+")
    name = "+".join([ALIASES.get(language, language), *variant])
    parts: list[NDArray[np.int16]] = []

    def collect(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: int) -> int:
        if samples and count:
            parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = CALLBACK(collect)
    with _one_at_a_time:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            rate = library.espeak_Initialize(SYNCHRONOUS, 0, _data().encode(), DONT_EXIT)
            library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
            library.espeak_SetSynthCallback(callback)
            if library.espeak_SetVoiceByName(name.encode()):
                raise ValueError(f"espeak-ng has no voice '{voice}'")
            library.espeak_SetParameter(RATE, speed, 0)
            library.espeak_SetParameter(PITCH, pitch, 0)
            said = text.encode()
            library.espeak_Synth(said, ctypes.c_size_t(len(said) + 1), 0, 1, 0, UTF8, None, None)
            library.espeak_Synchronize()
            library.espeak_Terminate()
        finally:
            _ctypes.dlclose(library._handle)
    return np.concatenate(parts), int(rate)


@functools.cache
def _home() -> TemporaryDirectory[str]:
    home = TemporaryDirectory(prefix="espeak-")
    (Path(home.name) / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path())
    return home


def _data() -> str:
    """A short path to the folder that holds espeak-ng's data: it cuts off what is longer than some 150 characters."""
    return _home().name


def noisy(samples: NDArray[np.int16], snr_db: float, seed: int) -> NDArray[np.int16]:
    """With white noise, `snr_db` below the sound's mean power."""
    power = float(np.mean(samples.astype(float) ** 2))
    noise = np.random.default_rng(seed).normal(0, np.sqrt(power / 10 ** (snr_db / 10)), len(samples))
    return np.clip(np.round(samples + noise), -32768, 32767).astype(np.int16)


def write_wav(path: Path, samples: NDArray[np.int16], rate: int) -> None:
    """16-bit mono; makes the folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
