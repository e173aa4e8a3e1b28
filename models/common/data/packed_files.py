"""Several files as the bytes of one example (a picture and a sound), and back: an uncompressed zip without dates."""

import io
import zipfile
from collections.abc import Mapping

from models.common.errors import BadExampleError


def pack(parts: Mapping[str, bytes]) -> bytes:
    """The same parts always give the same bytes, so that they have the same id."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(parts):
            archive.writestr(zipfile.ZipInfo(name), parts[name])  # dated 1980, whenever it is written
    return file.getvalue()


def unpack(payload: bytes) -> dict[str, bytes]:
    """What `pack` was given. BadExampleError where it is nothing of the kind."""
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise BadExampleError(f"not a packed example: {error}") from error
