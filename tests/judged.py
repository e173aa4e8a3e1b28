"""Programs to evaluate and judge, made in a moment and without torch: logistic regression on digits, as ONNX."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from models.common.data.batches import read_manifest
from models.common.program.program import ProgramSpec
from tasks.add import add
from tasks.evaluate import evaluate
from tests.digits import NAMES

LABELS = tuple(sorted(NAMES))


def write_program(folder: Path, examples: int, labels: tuple[str, ...] = LABELS, noise: float = 0.0) -> Path:
    """A linear classifier of 8 x 8 digits as an ONNX program, fitted on the last `examples` digits."""
    digits = load_digits()
    names = np.array([NAMES[digit] for digit in digits.target])
    known = np.flatnonzero(np.isin(names, labels))[-examples:]
    classifier = LogisticRegression(max_iter=200).fit(digits.data[known] * (255 / 16) / 255, names[known])
    weights = np.random.default_rng(0).normal(0, noise, (64, len(labels))) + classifier.coef_.T
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        linear_graph(weights.astype(np.float32), classifier.intercept_.astype(np.float32)), folder / "program.onnx"
    )
    ProgramSpec("image_classification", labels, {"size": 8, "max_pixels": 10_000}, {"model": "digits"}).save(folder)
    return folder


def linear_graph(weights: NDArray[np.float32], bias: NDArray[np.float32]) -> onnx.ModelProto:
    thirds = np.repeat(weights, 3, axis=0) / (3 * 255)  # each grey value comes three times, as R, G and B
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
    ]
    constants = {"weights": thirds, "bias": bias, "shape": np.array([-1, 192], np.int64)}
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(bias)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_training(folder: Path, manifest: pd.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest[manifest["split"] != "test"][["id", "group"]].to_parquet(folder / "trained_on.parquet", index=False)


def champion_of(project: Path, **changes: object) -> Path:
    folder = project / "artifacts/digits/champion"
    shutil.copytree(project / "artifacts/digits/training", folder / "training")
    write_program(folder / "program", **changes)  # type: ignore[arg-type]
    return folder


def write_project(template: Path, folder: Path, digits: Path) -> Path:
    """A project with the digits added and an evaluated candidate that was trained on others."""
    project = Path(shutil.copytree(template, folder, symlinks=True))
    add(project, "digits", digits)
    write_program(project / "artifacts/digits/program", 1500)
    write_training(project / "artifacts/digits/training", read_manifest(project / "data/digits"))
    evaluate(project, "digits")
    return project
