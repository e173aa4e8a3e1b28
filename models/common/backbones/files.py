"""Where weights come from: the caches of torch and of the Hugging Face hub, a download, with an end to its patience.

Whatever goes wrong is a WeightsMissing with the reason in a few words; nothing waits longer than PATIENCE.
"""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import torch

from models.common.errors import UserError

PATIENCE = 5.0  # seconds that a server may take to answer


class WeightsMissingError(Exception):
    """Weights cannot be had from here; the message is the reason."""


def checkpoints_folder() -> Path:
    """torch's cache of weights: ~/.cache/torch/hub/checkpoints, or as TORCH_HOME says."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def in_checkpoints(url: str) -> Path:
    """Where torch keeps what it downloads from `url`."""
    return checkpoints_folder() / Path(urlparse(url).path).name


def download(url: str) -> Path:
    """The file of `url`, in torch's cache; checked by the start of its SHA-256 where its name has one.

    Raises WeightsMissingError where it cannot be downloaded, UserError where the cache cannot be written.
    """
    target = in_checkpoints(url)
    check_writable(target.parent, "TORCH_HOME")
    expected = torch.hub.HASH_REGEX.search(target.name)
    try:
        with _patience():
            torch.hub.download_url_to_file(url, str(target), expected and expected.group(1), progress=False)
    except OSError as error:  # URLError, timeouts and refused connections are OSErrors
        raise WeightsMissingError(str(error)) from None
    except RuntimeError as error:  # another hash
        raise WeightsMissingError(" ".join(str(error).split())) from None
    return target


def in_hub_cache(repository: str, file: str) -> Path | None:
    """A file of the Hugging Face hub that was downloaded before, by whatever program."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, file)
    return Path(path) if isinstance(path, str) else None


def download_from_hub(repository: str, file: str) -> Path:
    """A file of the Hugging Face hub, by way of its cache. Raises as `download` does.

    Asks for the file's description first, once: the download itself would try a dead connection six times, 23 s.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    check_writable(Path(constants.HF_HUB_CACHE), "HF_HOME")
    try:
        get_hf_file_metadata(hf_hub_url(repository, file), timeout=PATIENCE)
        return Path(hf_hub_download(repository, file, etag_timeout=PATIENCE))
    except Exception as error:  # the hub's client raises its own errors, httpx's and OSErrors
        raise WeightsMissingError(" ".join(str(error).split())[:120]) from None


def check_writable(folder: Path, variable: str) -> None:
    """UserError where nothing can be written into a cache folder. variable: what says where it is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise UserError(
            f"The cache folder {folder} cannot be written ({error.strerror}), so no weights can be downloaded; set"
            f" {variable} to a folder that can"
        ) from None


@contextmanager
def _patience() -> Iterator[None]:
    """torch's download waits for ever for a server that does not answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
