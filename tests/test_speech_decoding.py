"""From frames to text, and from text to errors: against brute force, and against jiwer."""

import itertools
import math
import random
from collections import defaultdict

import jiwer
import numpy as np
import pytest

from models.common.transcripts import ctc_decoding
from models.common.transcripts.alignment import align, edit_counts, edit_distance
from models.common.transcripts.ctc_decoding import fits
from models.common.transcripts.spelling import Spelling, letters_of, unknown_letters

ALPHABET = (" ", "a", "b")


def random_frames(seed: int, count: int, columns: int) -> ctc_decoding.Frames:
    logits = np.random.default_rng(seed).normal(0, 2, (count, columns))
    frames: ctc_decoding.Frames = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    return frames


def certain(*letters: int, columns: int = 4) -> ctc_decoding.Frames:
    """Frames that are each as good as sure of one column."""
    chances = np.full((len(letters), columns), 1e-6)
    chances[np.arange(len(letters)), letters] = 1 - 1e-6 * (columns - 1)
    frames: ctc_decoding.Frames = np.log(chances).astype(np.float32)
    return frames


def all_paths(frames: ctc_decoding.Frames) -> dict[tuple[int, ...], list[tuple[float, tuple[int, ...]]]]:
    """Every way through the frames, by what it says."""
    said = defaultdict(list)
    for path in itertools.product(range(frames.shape[1]), repeat=len(frames)):
        letters = tuple(letter for letter, _ in itertools.groupby(path) if letter)
        said[letters].append((math.exp(sum(frames[index, letter] for index, letter in enumerate(path))), path))
    return said


@pytest.mark.parametrize("seed", range(25))
def test_a_beam_that_nothing_is_cut_from_finds_the_most_probable_text(seed: int) -> None:
    frames = random_frames(seed, 6, 3)
    said = all_paths(frames)
    chances = sorted((sum(chance for chance, _ in paths) for paths in said.values()), reverse=True)
    best = max(said, key=lambda letters: sum(chance for chance, _ in said[letters]))
    found = ctc_decoding.beam_search(frames, 10_000, min_probability=0.0)
    assert found.letters == best
    assert found.margin == pytest.approx(1 - chances[1] / chances[0], abs=1e-5)
    assert math.exp(ctc_decoding.log_probability(frames, best)) == pytest.approx(chances[0], rel=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_the_probabilities_of_all_texts_add_up_to_one(seed: int) -> None:
    frames = random_frames(seed, 5, 3)
    total = sum(math.exp(ctc_decoding.log_probability(frames, letters)) for letters in all_paths(frames))
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("seed", range(25))
def test_the_alignment_is_on_the_most_probable_path(seed: int) -> None:
    frames = random_frames(seed, 6, 3)
    for letters, paths in all_paths(frames).items():
        _, best = max(paths)
        starts = [index for index in range(6) if best[index] and (not index or best[index] != best[index - 1])]
        ends = [index for index in range(6) if best[index] and (index == 5 or best[index] != best[index + 1])]
        assert ctc_decoding.forced_alignment(frames, letters) == list(zip(starts, ends, strict=True))


def test_greedy_takes_out_repetitions_and_blanks_but_keeps_doubled_letters() -> None:
    assert ctc_decoding.greedy(certain(2, 2, 0, 2, 3, 3, 0, 0)).letters == (2, 2, 3)
    assert ctc_decoding.greedy(certain(0, 0)).letters == ()


def test_the_beam_adds_up_ways_that_greedy_looks_at_one_by_one() -> None:
    frames = np.log(np.array([[0.6, 0.4], [0.6, 0.4]], np.float32))
    assert ctc_decoding.greedy(frames).letters == ()  # 0.36, the best single path
    assert ctc_decoding.beam_search(frames, 4).letters == (1,)  # 0.64 over three paths


def test_words_have_the_times_of_their_letters() -> None:
    frames = certain(0, 2, 2, 3, 0, 1, 0, 3, 3, 0)
    found = ctc_decoding.greedy(frames)
    assert ctc_decoding.text_of(found.letters, ALPHABET) == "ab b"
    first, second = ctc_decoding.timed_words(frames, found, ALPHABET, 0.02)
    assert (first.word, first.start, first.end) == ("ab", 0.02, 0.08)
    assert (second.word, second.start, second.end) == ("b", 0.14, 0.18)
    assert first.confidence == pytest.approx(1, abs=1e-4)
    assert ctc_decoding.confidence(frames, found, 2) == pytest.approx(1, abs=1e-4)


def test_an_uncertain_word_is_told_from_a_certain_one() -> None:
    frames = np.concatenate([certain(2, 0, 1), np.log(np.array([[0.2, 0.1, 0.1, 0.6]], np.float32))])
    sure, unsure = ctc_decoding.timed_words(frames, ctc_decoding.greedy(frames), ALPHABET, 0.02)
    assert sure.confidence > 0.99
    assert unsure.confidence == pytest.approx(0.6, abs=1e-3)


def test_spaces_at_the_ends_and_twice_in_a_row_say_nothing() -> None:
    frames = certain(1, 2, 1, 0, 1, 3, 1)
    found = ctc_decoding.greedy(frames)
    assert ctc_decoding.text_of(found.letters, ALPHABET) == "a b"
    assert [word.word for word in ctc_decoding.timed_words(frames, found, ALPHABET, 0.02)] == ["a", "b"]


def test_a_silent_recording_has_no_words() -> None:
    frames = certain(0, 0, 0)
    for found in (ctc_decoding.greedy(frames), ctc_decoding.beam_search(frames, 8)):
        assert (found.letters, ctc_decoding.timed_words(frames, found, ALPHABET, 0.02)) == ((), [])
        assert 0.99 < ctc_decoding.confidence(frames, found, 0) <= 1


def test_the_margin_is_small_only_where_another_text_is_as_good() -> None:
    tie = np.log(np.array([[0.0001, 0.0001, 0.4999, 0.4999]], np.float32))
    harmless = np.log(np.array([[0.02, 0.04, 0.9, 0.04], [0.49995, 0.00005, 0.49995, 0.00005]], np.float32))
    assert ctc_decoding.greedy(np.concatenate([certain(3, 0), tie])).margin < 1e-3
    assert ctc_decoding.beam_search(tie, 4).margin < 1e-3
    assert (
        ctc_decoding.greedy(harmless).margin == ctc_decoding.TIE_MARGIN
    )  # a or a blank after an a: the text is "a" in any case


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(["one", "two", "too", "three", "for"], k=rng.randint(1, 9)))


@pytest.mark.parametrize("seed", range(40))
def test_errors_are_counted_as_jiwer_counts_them(seed: int) -> None:
    rng = random.Random(seed)
    reference, hypothesis = sentence(rng), sentence(rng) if seed % 8 else ""
    theirs = jiwer.process_words(reference, hypothesis)
    pairs = align(reference.split(), hypothesis.split())
    substitutions, deletions, insertions = edit_counts(pairs)
    assert substitutions + deletions + insertions == theirs.substitutions + theirs.deletions + theirs.insertions
    assert insertions - deletions == theirs.insertions - theirs.deletions
    assert [expected for expected, _ in pairs if expected is not None] == reference.split()
    assert [said for _, said in pairs if said is not None] == hypothesis.split()
    letters = jiwer.process_characters(reference, hypothesis)
    assert edit_distance(reference, hypothesis) == letters.substitutions + letters.deletions + letters.insertions


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a b c", "a b c", (0, 0, 0)),
        ("a b c", "a x c", (1, 0, 0)),
        ("a b c", "a c", (0, 1, 0)),
        ("a b c", "a b b c", (0, 0, 1)),
        ("a b c", "", (0, 3, 0)),
        ("a", "x y z", (1, 0, 2)),
    ],
)
def test_errors_of_hand_made_cases(reference: str, hypothesis: str, expected: tuple[int, int, int]) -> None:
    assert edit_counts(align(reference.split(), hypothesis.split())) == expected


def test_transcripts_that_sound_the_same_are_spelt_the_same() -> None:
    spelling = Spelling(lower_case=True, ignored='.,!?"-')
    assert spelling("  Don\u2019t  STOP, it-is 'late'!") == "don't stop it is 'late'"
    assert spelling("cafe\u0301") == "caf\u00e9"
    assert Spelling(lower_case=False, ignored="")("A  b.") == "A b."
    assert letters_of(["b a", "c"]) == (" ", "a", "b", "c")
    assert unknown_letters("naïve façade ï", "navefcd") == "ïç"


def test_letters_that_are_doubled_need_a_frame_between_them() -> None:
    assert fits(np.array([1, 2, 1]), 3)
    assert not fits(np.array([1, 1, 2]), 3)


def test_what_was_found_need_not_be_greedy_to_be_align() -> None:
    frames = random_frames(3, 8, 4)
    spans = ctc_decoding.forced_alignment(frames, (2, 2))
    assert spans[0][1] + 1 < spans[1][0]  # two of the same letter have a blank between them
