"""Which training examples a training is not taught, so that they can select its best epoch."""

from typing import TYPE_CHECKING

from models.common.data.hashing import unit_interval

if TYPE_CHECKING:
    import pandas as pd


def with_validation(manifest: "pd.DataFrame", share: float) -> "pd.DataFrame":
    """The manifest with validation examples: its own, or, where a delivery came as train and test alone, a share of the
    training groups, by a hash of each: the same ones in every run, and as data grows."""
    if share == 0 or (manifest["split"] == "val").any():
        return manifest
    groups = manifest.loc[manifest["split"] == "train", "group"].unique()
    hashes = {group: unit_interval(f"validation {group}") for group in groups}
    held_out = {group for group, value in hashes.items() if value < share}
    if not held_out and len(groups) > 1:
        held_out = {min(groups, key=hashes.__getitem__)}
    chosen = (manifest["split"] == "train") & manifest["group"].isin(held_out)
    return manifest.assign(split=manifest["split"].mask(chosen, "val"))
