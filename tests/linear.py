"""A real program made in a second and without torch: logistic regression on the pixels of digits, written as ONNX.

With it goes what the stages before packaging leave behind: one batch, and the evaluation of its test split.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from models.common.images import decode, open_image
from models.common.program import Program, ProgramSpec, softmax

MAX_PIXELS = 1_000_000
WriteProgram = Callable[[Path, NDArray[np.uint8], list[str], tuple[str, ...]], None]


def write_candidate(
    root: Path, model: str, photos: Path, size: int, write_program: WriteProgram | None = None
) -> pd.DataFrame:
    """Batch, program and evaluation of `model` from class folders, as if added, trained and evaluated; the scores."""
    rows = _rows(photos)
    _write_batch(root / "data" / model, rows)
    pixels = np.stack([decode(open_image(payload, MAX_PIXELS), size) for payload in rows["bytes"]])
    labels = tuple(sorted(set(rows["label"])))
    program = root / "artifacts" / model / "program"
    train = rows["split"] == "train"
    program.mkdir(parents=True)
    (write_program or write_linear)(program, pixels[train], list(rows["label"][train]), labels)
    ProgramSpec("image_classification", labels, {"size": size, "max_pixels": MAX_PIXELS}, {"commit": "abc123"}).save(
        program
    )
    test = (rows["split"] == "test").to_numpy()
    logits = Program(program).run(images=pixels[test])["logits"]
    scores = _scores(rows[test], softmax(logits), labels)
    (root / "artifacts" / model / "evaluation").mkdir(parents=True)
    scores.to_parquet(root / "artifacts" / model / "evaluation" / "examples.parquet")
    return scores


def _rows(photos: Path) -> pd.DataFrame:
    files = sorted(photos.glob("*/*"))
    payloads = [path.read_bytes() for path in files]
    return pd.DataFrame(
        {
            "id": [hashlib.sha256(payload).hexdigest() for payload in payloads],
            "label": [path.parent.name for path in files],
            "split": ["test" if index % 3 == 0 else "train" for index in range(len(files))],
            "batch": "first",
            "row": range(len(files)),
            "bytes": payloads,
        }
    )


def _write_batch(folder: Path, rows: pd.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(rows.drop(columns=["batch", "row"])), folder / "first.parquet")
    (folder / "first.parquet.dvc").write_text("outs:\n- md5: 0123456789abcdef\n  path: first.parquet\n")


def write_linear(folder: Path, pixels: NDArray[np.uint8], truth: list[str], labels: tuple[str, ...]) -> None:
    """program.onnx of a logistic regression fitted to `pixels` (N, size, size, 3)."""
    fitted = LogisticRegression(max_iter=500).fit(pixels.reshape(len(pixels), -1) / 255, truth)
    weights = {"w": (fitted.coef_.T / 255).astype(np.float32), "b": fitted.intercept_.astype(np.float32)}
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
    ]
    size = pixels.shape[1]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", size, size, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(labels)])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    program = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(program, folder / "program.onnx")


def _scores(rows: pd.DataFrame, chances: NDArray[np.float32], labels: tuple[str, ...]) -> pd.DataFrame:
    prediction = [labels[index] for index in chances.argmax(axis=1)]
    return rows.drop(columns="bytes").assign(prediction=prediction, probabilities=list(chances))
