"""From a program's frames to text: greedy, or prefix beam search, with word times and confidence. Needs NumPy alone.

Frames are log probabilities (F, 1 + letters); column 0 is CTC's blank (Graves et al., ICML 2006), which separates
letters and says nothing. No language model: what is not heard is not guessed.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLANK = 0
Frames = NDArray[np.float32]
Beams = dict[tuple[int, ...], tuple[float, float]]  # letters -> probability that ends in a blank, in the last of them
NO_PROBABILITY = (0.0, 0.0)
MIN_PROBABILITY = 1e-4  # a letter less probable than this in a frame opens no new branch of the search
TIE_MARGIN = 0.01  # two letters of a frame closer than this in probability: another machine may choose the other
LOG_ZERO = -1e30  # log probability of what cannot be; finite, so that sums of it stay numbers


@dataclass(frozen=True)
class Hypothesis:
    """The letters that were decoded, as columns of the frames, and how clearly they won."""

    letters: tuple[int, ...]
    margin: float  # probability between them and the next best; under a thousandth another machine may say that


@dataclass(frozen=True)
class Word:
    """A word, when it is said, and how sure the program is of its letters: their geometric mean probability."""

    word: str
    start: float  # seconds
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What is said in one recording."""

    text: str
    words: list[Word]
    confidence: float  # probability of the text, taken to one word
    margin: float  # to the next best text; see Hypothesis


def transcribe(frames: Frames, alphabet: Sequence[str], frame_seconds: float, beam_width: int) -> Transcript:
    """The text of a recording's frames by beam search, or greedily where `beam_width` is 0."""
    hypothesis = beam_search(frames, beam_width) if beam_width else greedy(frames)
    words = timed_words(frames, hypothesis, alphabet, frame_seconds)
    text, text_confidence = text_of(hypothesis.letters, alphabet), confidence(frames, hypothesis, len(words))
    return Transcript(text, words, text_confidence, hypothesis.margin)


def greedy(frames: Frames) -> Hypothesis:
    """The most probable letter of each frame, repetitions and blanks taken out."""
    best = frames.argmax(axis=1)
    return Hypothesis(tuple(_collapse(best)), _greedy_margin(frames, best))


def beam_search(frames: Frames, width: int, min_probability: float = MIN_PROBABILITY) -> Hypothesis:
    """The most probable letters over all alignments, `width` beginnings kept (Hannun et al., 2014).

    With a width that nothing is cut at and `min_probability` 0 it is exact.
    """
    beams: Beams = {(): (1.0, 0.0)}
    probabilities = np.exp(frames.astype(np.float64))
    for row, likely in zip(probabilities.tolist(), probabilities >= min_probability, strict=True):
        letters = [letter for letter in np.flatnonzero(likely).tolist() if letter != BLANK]
        extended = _extend(beams, row, letters)
        kept = heapq.nsmallest(width, extended.items(), key=_rank)
        total = sum(kept[0][1]) or 1.0  # of the best: the others are kept relative to it, so nothing underflows
        beams = {text: (blank / total, other / total) for text, (blank, other) in kept}
    (first, best), *others = sorted(beams.items(), key=_rank)
    return Hypothesis(first, 1.0 - sum(others[0][1]) / sum(best) if others else 1.0)


def _rank(item: tuple[tuple[int, ...], tuple[float, float]]) -> tuple[float, tuple[int, ...]]:
    return -item[1][0] - item[1][1], item[0]


def _extend(beams: Beams, row: list[float], likely: list[int]) -> Beams:
    """Every beginning as it is, and longer by each of the likely letters."""
    extended: Beams = {}
    for text, (blank, other) in beams.items():
        last, both = text[-1] if text else BLANK, blank + other
        before = extended.get(text, NO_PROBABILITY)
        extended[text] = (before[0] + both * row[BLANK], before[1] + (other * row[last] if text else 0.0))
        for letter in likely:
            longer = (*text, letter)
            before = extended.get(longer, NO_PROBABILITY)
            extended[longer] = (before[0], before[1] + row[letter] * (blank if letter == last else both))
    return extended


def log_probability(frames: Frames, letters: Sequence[int]) -> float:
    """Log probability of exactly these letters, over all alignments (the CTC forward algorithm)."""
    if not len(frames):
        return 0.0 if not letters else -math.inf
    states, jumps = _states(letters)
    emissions = frames[:, states].astype(np.float64)
    forward = np.full(len(states), LOG_ZERO)
    forward[:2] = emissions[0, :2]
    for row in emissions[1:]:
        step = np.concatenate([[LOG_ZERO], forward[:-1]])
        jump = np.concatenate([[LOG_ZERO, LOG_ZERO], forward[:-2]])[: len(states)]
        forward = np.logaddexp(np.logaddexp(forward, step), np.where(jumps, jump, LOG_ZERO)) + row
    return float(np.logaddexp.reduce(forward[-2:]))


def forced_alignment(frames: Frames, letters: Sequence[int]) -> list[tuple[int, int]]:
    """First and last frame of each letter on the most probable path that emits these letters (Viterbi).

    The letters must fit into the frames, as those that were decoded from them do.
    """
    states, jumps = _states(letters)
    emissions = frames[:, states]
    best = np.full(len(states), LOG_ZERO)
    best[:2] = emissions[0, :2]
    backpointers = np.zeros(emissions.shape, np.int8)
    for frame in range(1, len(frames)):
        jump = np.concatenate([[LOG_ZERO, LOG_ZERO], best[:-2]])[: len(states)]
        candidates = np.stack([best, np.concatenate([[LOG_ZERO], best[:-1]]), np.where(jumps, jump, LOG_ZERO)])
        backpointers[frame] = candidates.argmax(axis=0)
        best = candidates.max(axis=0) + emissions[frame]
    state = len(states) - 1 - (len(states) > 1 and best[-2] > best[-1])
    spans: dict[int, tuple[int, int]] = {}
    for frame in range(len(frames) - 1, -1, -1):
        if state % 2:
            spans[state // 2] = (frame, spans.get(state // 2, (frame, frame))[1])
        state -= int(backpointers[frame, state])
    return [spans[index] for index in range(len(letters))]


def timed_words(frames: Frames, hypothesis: Hypothesis, alphabet: Sequence[str], frame_seconds: float) -> list[Word]:
    """The words of a hypothesis, each with its times: from its first letter's first frame to its last one's last."""
    if not hypothesis.letters:
        return []
    spans = forced_alignment(frames, hypothesis.letters)
    letters = [
        (alphabet[letter - 1], start, end, float(frames[start : end + 1, letter].max()))
        for letter, (start, end) in zip(hypothesis.letters, spans, strict=True)
    ]
    words: list[list[tuple[str, int, int, float]]] = [[]]
    for letter in letters:
        if letter[0] == " ":
            words.append([])
        else:
            words[-1].append(letter)
    return [
        Word(
            "".join(letter for letter, *_ in word),
            round(word[0][1] * frame_seconds, 3),
            round((word[-1][2] + 1) * frame_seconds, 3),
            round(math.exp(sum(log for *_, log in word) / len(word)), 6),
        )
        for word in words
        if word
    ]


def text_of(letters: Sequence[int], alphabet: Sequence[str]) -> str:
    """Letters as text; a space at either end or twice in a row says nothing."""
    return " ".join("".join(alphabet[letter - 1] for letter in letters).split())


def confidence(frames: Frames, hypothesis: Hypothesis, words: int) -> float:
    """Probability of the whole text, taken to one word: the root of as many as there are."""
    return math.exp(min(0.0, log_probability(frames, hypothesis.letters)) / max(1, words))


def fits(letters: NDArray[np.int64], frames: int) -> bool:
    """Whether CTC can emit these letters in so many frames: one each, and a blank between two that are the same."""
    return len(letters) + int((letters[1:] == letters[:-1]).sum()) <= frames


def _states(letters: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Blank, letter, blank, letter, …, blank; and which states may follow the last but one."""
    states = np.full(2 * len(letters) + 1, BLANK, np.int64)
    states[1::2] = letters
    jumps = np.zeros(len(states), bool)
    jumps[3::2] = states[3::2] != states[1:-2:2]
    return states, jumps


def _collapse(path: NDArray[np.int64]) -> list[int]:
    changes = np.flatnonzero(np.diff(path, prepend=-1))
    return [int(letter) for letter in path[changes] if letter != BLANK]


def _greedy_margin(frames: Frames, best: NDArray[np.int64]) -> float:
    """The least change of a frame's probabilities that would make another text of it; TIE_MARGIN where it is larger."""
    probabilities, rows = np.exp(frames), np.arange(len(frames))
    first = probabilities[rows, best]
    probabilities[rows, best] = 0
    second = probabilities.argmax(axis=1)
    gap = first - probabilities[rows, second]
    text, margin = _collapse(best), TIE_MARGIN
    for frame in np.flatnonzero(gap < TIE_MARGIN):
        other = best.copy()
        other[frame] = second[frame]
        if _collapse(other) != text:
            margin = min(margin, float(gap[frame]))
    return margin
