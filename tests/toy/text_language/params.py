"""Params: those that every kind has."""

from models.common.params import DataParams as Data
from models.common.params import TrainParams as Train

__all__ = ["Data", "Train"]
