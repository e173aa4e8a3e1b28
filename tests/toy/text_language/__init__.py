"""Text language: which language a short text is in, by how often each letter occurs in it."""

from models.common.kind import Metric, Truth

TRUTH: Truth = "class"
COLUMNS = {"letters": "int32"}
METRICS = (Metric("accuracy", numerator="correct", binary=True),)
