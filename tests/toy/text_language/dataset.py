"""Letter shares of a manifest's texts, computed once; training and evaluation take them from here."""

from pathlib import Path

import pandas as pd

from models.common.data.decoded_cache import Decoded, decoded
from models.text_language.preprocessing import ALPHABET, letter_shares


def texts(rows: pd.DataFrame, batches: Path, home: Path) -> Decoded:
    """(34,) uint8 each, by position."""
    return decoded(batches, rows, home, "letters", (len(ALPHABET),), letter_shares)
