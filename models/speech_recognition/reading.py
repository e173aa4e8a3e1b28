"""Recordings and their transcripts as data: which files are examples, what is refused, what is checked over all."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from models.common.audio.checks import audio_expectations, inspect_sound
from models.common.audio.decoding import EXTENSIONS
from models.common.data.sources import SPLIT_NAMES, Source, labelled_files
from models.common.errors import BadExampleError, UserError
from models.common.kind import Example, Expectation
from models.common.transcripts.spelling import Spelling, letters_of, unknown_letters
from models.speech_recognition.params import SpeechData

if TYPE_CHECKING:
    import pandas as pd

TRANSCRIPT_SUFFIX = ".trans.txt"  # LibriSpeech: a file for each chapter, a line for each recording: its name, its text
MAX_SHOWN_LETTERS = 40  # letters of a transcript in a message


def examples(source: Source, data: SpeechData) -> Iterator[Example]:
    """Files beside a metadata file, or LibriSpeech's own folders."""
    if any(path.endswith(TRANSCRIPT_SUFFIX) for path in source.paths):
        return librispeech(source)
    return labelled_files(source, EXTENSIONS, data.columns)


def librispeech(source: Source) -> Iterator[Example]:
    """<split>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac beside <speaker>-<chapter>.trans.txt.

    train-clean-100 is train, dev-other is val, and so on. The speaker is the group and a slice.
    """
    texts = dict(_transcripts(source))
    sounds = [path for path in source.paths if f".{path.rpartition('.')[2].lower()}" in EXTENSIONS]
    for path in sorted(set(texts) - {_stem(path) for path in sounds}):
        source.reject(path, "has a transcript, but there is no such recording")
    for path in sounds:
        if _stem(path) not in texts:
            source.reject(path, f"no line of a {TRANSCRIPT_SUFFIX} file has its transcript")
    transcribed = [path for path in sounds if _stem(path) in texts]
    source.total, source.columns = len(transcribed), ("speaker",)
    for path, payload in source.stream(transcribed):
        speaker = path.rsplit("/", 1)[-1].split("-", maxsplit=1)[0]
        yield Example(path, payload, texts[_stem(path)], _split(path), speaker, {"speaker": speaker})


def _transcripts(source: Source) -> Iterator[tuple[str, str]]:
    """(path of the recording without its ending, transcript)."""
    for path, payload in source.stream([path for path in source.paths if path.endswith(TRANSCRIPT_SUFFIX)]):
        folder = path.rpartition("/")[0]
        try:
            lines = payload.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from None
        for line in filter(str.strip, lines):
            name, _, text = line.strip().partition(" ")
            yield f"{folder}/{name}" if folder else name, text


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def _split(path: str) -> str | None:
    """Of the innermost folder that names one: train-clean-100, dev-other."""
    splits = [SPLIT_NAMES.get(folder.lower().split("-")[0]) for folder in path.split("/")[:-1]]
    return next((split for split in reversed(splits) if split), None)


def inspect(example: Example, data: SpeechData) -> dict[str, Any]:
    """AUDIO_COLUMNS of a recording whose transcript can be learnt. Raises BadExampleError with the reason."""
    text = Spelling.of(data)(example.label or "")
    if not text:
        raise BadExampleError("its transcript has no letter")
    unknown = unknown_letters(text, data.alphabet) if data.alphabet is not None else ""
    if unknown:
        shown = text if len(text) <= MAX_SHOWN_LETTERS else f"{text[:MAX_SHOWN_LETTERS]}…"
        raise BadExampleError(f"letter '{unknown[0]}' of '{shown}' is not in data.alphabet ({data.alphabet})")
    return inspect_sound(example.payload, data)


def expectations(data: SpeechData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Of sounds, and of their transcripts. Adds the columns that they look at to `manifest`."""
    texts = manifest["label"].map(Spelling.of(data))
    alphabet = data.alphabet if data.alphabet is not None else letters_of(texts[manifest["split"] == "train"])
    manifest["unknown_letters"] = [unknown_letters(text, alphabet) for text in texts]
    manifest["letters_per_second"] = texts.str.len() / manifest["seconds"]
    return [
        *audio_expectations(data, manifest),
        _known_letters(data, sorted(set(manifest["unknown_letters"]))),
        *_speaking_rate(data),
    ]


def _known_letters(data: SpeechData, unknown: list[str]) -> Expectation:
    strange = "".join(sorted(set("".join(unknown))))
    where = "never in the training split" if data.alphabet is None else "not in data.alphabet"
    return Expectation(
        name="transcripts have known letters",
        expectation="ExpectColumnValuesToBeInSet",
        kwargs={"column": "unknown_letters", "value_set": [""]},
        severity="warn",
        remedy=f"a letter of a transcript cannot be learnt; {where}: {strange or 'none'}. Such a letter can never be"
        " answered: add training examples that have it, write it otherwise, or put it into data.ignored",
    )


def _speaking_rate(data: SpeechData) -> list[Expectation]:
    limit = data.max_letters_per_second
    return [
        Expectation(
            name="transcripts fit their recordings",
            expectation="ExpectColumnValuesToBeBetween",
            kwargs={"column": "letters_per_second", "max_value": limit},
            severity="warn",
            remedy=f"a transcript has over max_letters_per_second ({limit:g}); it is of another recording, or"
            " the recording was cut off",
        )
    ]
