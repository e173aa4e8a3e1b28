"""What learns languages: one linear layer, driven by the same loop as every other kind."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.classification.labels import class_labels, class_numbers
from models.common.data.batches import data_version
from models.common.data.decoded_cache import decoded
from models.common.kind import TrainJob
from models.common.program.export import export, parity
from models.common.program.program import ProgramSpec
from models.common.training import distributed
from models.common.training.checkpoints import for_job
from models.common.training.freezing import layer_groups
from models.common.training.logger import Curves
from models.common.training.loop import fit
from models.common.training.results import clear_errors, fresh_folders, write_results
from models.text_language.predictor import ALPHABET, counts

Batch = tuple[Tensor, Tensor]  # letter counts (N, 34) uint8, languages (N,) int64


class Net(nn.Module):
    """Letter counts (N, 34) uint8 -> logits (N, languages)."""

    def __init__(self, languages: int) -> None:
        super().__init__()
        self.stem = nn.Linear(len(ALPHABET), 16)
        self.head = nn.Linear(16, languages)

    def forward(self, shares: Tensor) -> Tensor:
        hidden: Tensor = self.head(torch.relu(self.stem(shares.float() / 25)))
        return hidden


class Languages:
    """A Learner (models/common/training/loop.py) of letter counts."""

    def __init__(self, job: TrainJob, labels: tuple[str, ...]) -> None:
        torch.manual_seed(job.train.seed)
        self.network = Net(len(labels))
        self.groups = layer_groups(self.network, [self.network.head])
        self._train, self._val = (self._texts(job, split, labels) for split in ("train", "val"))
        self.examples = len(self._train[1])

    @staticmethod
    def _texts(job: TrainJob, split: str, labels: tuple[str, ...]) -> Batch:
        rows = job.manifest[job.manifest["split"] == split]
        found = decoded(job.batches, rows, job.home, "letters", (len(ALPHABET),), counts)
        everything = found.take(np.arange(len(rows)))
        return torch.from_numpy(everything), torch.tensor(class_numbers(rows, labels))

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Those texts."""
        return self._train[0][positions], self._train[1][positions]

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(self.network(batch[0]).float(), batch[1])

    def evaluate(self) -> dict[str, float]:
        """The same over the validation split."""
        return {"val_loss": float(self.loss(self._val))}


def train(job: TrainJob) -> None:
    """Trains and writes the program."""
    with clear_errors(job):
        labels = class_labels(job.manifest, job.data)
        fresh_folders(job)
        learner = Languages(job, labels)
        if job.initial:
            learner.network.load_state_dict(torch.load(job.initial, weights_only=True)["state"])
        checkpoints = for_job(job, data_version(job.batches))
        with Curves(job.out / "training", job.train.epochs, None) as curves:
            fitted = fit(learner, job.train, "val_loss", distributed.device(), checkpoints, curves)
        spec = ProgramSpec("text_language", labels, {}, dict(job.provenance))
        probes, _ = learner.fetch(np.arange(min(8, learner.examples)))
        export(learner.network, probes[:2], spec, job.out / "program", "counts")
        difference = parity(learner.network, job.out / "program", probes.numpy(), "counts")
        write_results(job, learner.network, labels, "linear", fitted, parity_max_abs_diff=difference)
        checkpoints.clear()
