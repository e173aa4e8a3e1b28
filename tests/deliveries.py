"""What benchmarks/soak.py delivers: labelled examples of three kinds, good and bad, and what only its oracle sees."""

from pathlib import Path

from tests.digits import write_digits
from tests.samples import semantic_segmentation as scenes
from tests.samples import speech_command as orders


class Deliveries:
    """Labelled examples of every kind, never the same twice, and those that only the oracle sees."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = {"written": 0, "orders": 0, "scenes": 0}
        self._last: dict[str, Path] = {}

    def make(self, model: str, quality: str, number: int) -> Path:
        """A folder to add."""
        if quality == "duplicate" and model in self._last:
            return self._last[model]
        folder = self._folder / f"{number:03d}-{model}-{quality.replace(' ', '-')}"
        mistaken = 0.4 if quality == "wrong labels" else 0.0
        getattr(self, f"_{model}")(folder, mistaken, quality == "new class" or number > 9)
        if quality == "damaged":
            self._damage(folder)
        else:
            self._last[model] = folder
        return folder

    def oracle(self, model: str) -> Path:
        """What is never delivered."""
        folder = self._folder / f"oracle-{model}"
        if model == "written":
            return write_digits(folder, 1400, 1797)
        if model == "orders":
            return orders.write_orders(folder, "oracle", 40, "test", words=orders.WORDS[:5])
        return scenes.write_scenes(folder, 5000, 5120)

    def _written(self, folder: Path, mistaken: float, everything: bool) -> None:
        start = self._next["written"]
        self._next["written"] = (start + 140) % 1400
        write_digits(folder, start, start + 140, mistaken)
        if not everything:  # nines come later
            for path in (folder / "nine").glob("*"):
                path.unlink()

    def _orders(self, folder: Path, mistaken: float, everything: bool) -> None:
        self._next["orders"] += 1
        words = orders.WORDS[:5] if everything else orders.WORDS[:4]
        for split, count in (("train", 14), ("val", 3), ("test", 10)):
            orders.write_orders(folder, f"{folder.name}-{split}", count, split, mistaken=mistaken, words=words)

    def _scenes(self, folder: Path, mistaken: float, _everything: bool) -> None:
        start = self._next["scenes"]
        self._next["scenes"] += 40
        scenes.write_scenes(folder, start, start + 40, mistaken=mistaken)

    def _damage(self, folder: Path) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.suffix in {".png", ".wav"}]
        for path in files[::3]:
            path.write_bytes(path.read_bytes()[:40])
