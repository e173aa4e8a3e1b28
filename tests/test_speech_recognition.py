"""Speech to text: what is read, what is decoded and scored, and whether network, program and service agree."""

import numpy as np
import pytest

from tests.samples.speech import VOICES, noisy, say


def test_made_speech_is_the_same_twice_whatever_was_said_between() -> None:
    first, rate = say("three one four")
    others = [say("three one four", voice)[0] for voice in ("en-gb", "en-us+f3", "en+m4")]
    again, _ = say("three one four")
    assert rate == 22050
    np.testing.assert_array_equal(first, again)
    assert len({samples.tobytes() for samples in [first, say("two seven")[0], *others]}) == 5


@pytest.mark.parametrize("voice", VOICES)
def test_every_voice_is_heard(voice: str) -> None:
    samples, rate = say("hello", voice, speed=160, pitch=40)
    assert 0.3 < len(samples) / rate < 2
    assert np.abs(samples).max() > 3000


def test_noise_has_the_power_that_was_asked_for() -> None:
    samples, _ = say("hello")
    noise = noisy(samples // 4, 10, seed=0).astype(float) - samples // 4
    measured = 10 * np.log10(np.mean((samples // 4).astype(float) ** 2) / np.mean(noise**2))
    assert measured == pytest.approx(10, abs=0.2)
