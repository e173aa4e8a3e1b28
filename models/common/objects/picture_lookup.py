"""Which picture an annotation means, and which split it is in: what annotation layouts have in common."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable

from models.common.data.sources import SPLIT_NAMES
from models.common.errors import BadExampleError
from models.common.image.decoding import open_image, upright_size

HEADER_PIXELS = 2**40  # how large a picture may be whose size alone is read


class PictureIndex:
    """The pictures of a source, found by whatever an annotation calls them."""

    def __init__(self, paths: Iterable[str], extensions: Collection[str]) -> None:
        self.paths = [path for path in paths if extension(path) in extensions]
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            self._by_name[path.rpartition("/")[2]].append(path)
            self._by_stem[stem(path)].append(path)

    def find(self, name: str, relative_to: str, hint: str = "") -> str | None:
        """The picture called `name`, possibly with folders; of several the one nearest to the file `relative_to`, those
        in a folder called `hint` first. None: there is none. BadExampleError where two are as near."""
        path = name.replace("\\", "/").removeprefix("./")
        candidates = self._by_name.get(path.rpartition("/")[2], [])
        matches = [candidate for candidate in candidates if f"/{candidate}".endswith(f"/{path}")]
        return nearest(matches or candidates, relative_to, hint)

    def find_by_stem(self, name: str, relative_to: str) -> str | None:
        """The same by the name without its ending."""
        return nearest(self._by_stem.get(name, []), relative_to)


def nearest(candidates: list[str], relative_to: str, hint: str = "") -> str | None:
    """The candidate that shares the most upper folders with `relative_to`."""
    folders = relative_to.split("/")[:-1]
    ranked = sorted(((hint in path.split("/")[:-1], _shared_folders(path, folders)), path) for path in candidates)
    if len(ranked) > 1 and ranked[-1][0] == ranked[-2][0]:
        raise BadExampleError(f"may mean {ranked[-2][1]} or {ranked[-1][1]}; give pictures names of their own")
    return ranked[-1][1] if ranked else None


def split_of_path(path: str) -> str | None:
    """The split that a folder above a file names: train, val2017, …"""
    return next((split for folder in path.split("/")[:-1] if (split := split_of_name(folder))), None)


def split_of_name(name: str) -> str | None:
    """The split in a name such as instances_train2017 or val; None where it names none or several."""
    words = [re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", name.lower())]
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else None


def picture_size(payload: bytes) -> tuple[int, int]:
    """(width, height) in px of a picture as it is shown, after its EXIF rotation. BadExampleError where it is none."""
    return upright_size(open_image(payload, HEADER_PIXELS))


def stem(path: str) -> str:
    """The file's name without its ending."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def extension(path: str) -> str:
    """ ".jpg" of a path; "" where it has none."""
    name = path.rpartition("/")[2]
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def _shared_folders(path: str, folders: list[str]) -> int:
    steps, count = path.split("/")[:-1], 0
    while count < min(len(steps), len(folders)) and steps[count] == folders[count]:
        count += 1
    return count
