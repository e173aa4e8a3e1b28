"""What a person sees of a training while it runs, and the curves that stay: terminal, history.csv, TensorBoard, W&B."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.common.errors import UserError

Row = dict[str, float]


class TrainingLogger:
    """One line per epoch on standard error, with a live bar above it on a terminal; every epoch's row on disk at once.

    `folder` None: silent and nothing is written (the further processes of a training on several GPUs).
    """

    def __init__(self, folder: Path | None, epochs: int, wandb: dict[str, Any] | None = None) -> None:
        """`wandb`: what to log as the run's config, or None for no W&B. UserError where it is not installed."""
        self._folder = folder
        self._epochs = epochs
        self.rows: list[Row] = []
        self._bar = _bar() if folder else None
        self._wandb = _wandb_run(wandb) if folder and wandb is not None else None
        self._board: Any = None

    def __enter__(self) -> Self:
        if self._folder:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self._folder / "tensorboard"))
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if self._board:
            self._board.close()
        if self._wandb:
            self._wandb.finish(exit_code=int(error is not None))

    def start_epoch(self, epoch: int, steps: int) -> None:
        """A new epoch (from 1) of `steps` steps."""
        if self._bar:
            self._bar.reset(self._task, total=steps, description=f"epoch {epoch}/{self._epochs}")

    def step(self) -> None:
        """One step is done."""
        if self._bar:
            self._bar.advance(self._task)

    def end_epoch(self, row: Row) -> None:
        """An epoch is done: shown, and written to disk."""
        self.log(row)
        if self._folder:
            metrics = " ".join(f"{name} {row[name]:.4g}" for name in row if name not in _NOT_SHOWN)
            line = f"epoch {row['epoch']:.0f}/{self._epochs} {metrics} ({row['seconds']:.1f} s)"
            self._bar.console.print(line) if self._bar else print(line, file=sys.stderr, flush=True)

    def log(self, row: Row) -> None:
        """An epoch's row on disk, without showing it: also how a resumed run takes over the rows of the one before."""
        self.rows.append(row)
        if not self._folder:
            return
        frame = pd.DataFrame(self.rows).astype({"epoch": int})
        frame.to_csv(self._folder / "history.csv", index=False, float_format="%.6g")
        for name, value in row.items():
            if name != "epoch":
                self._board.add_scalar(name, value, int(row["epoch"]))
        self._board.flush()
        if self._wandb:
            self._wandb.log(row, step=int(row["epoch"]))


_NOT_SHOWN = ("epoch", "seconds", "seconds_per_step", "learning_rate")


def _bar() -> Progress | None:
    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )


def _wandb_run(config: dict[str, Any]) -> Any:
    try:
        import wandb  # type: ignore[import-not-found]  # asked for by few, so not among the requirements
    except ImportError:
        raise UserError("train.wandb is true but wandb is not installed: pip install wandb, or set it false") from None
    return wandb.init(project="ratchet", config=config)
