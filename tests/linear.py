"""A real program made in a second and without torch: logistic regression on the pixels of digits, written as ONNX.

With it goes one batch, as `ratchet add` leaves it, and the evaluation, by the stage itself.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from models.common.image.decoding import decode, open_image
from models.common.program.program import ProgramSpec
from tasks.evaluate import evaluate

MAX_PIXELS = 1_000_000
WriteProgram = Callable[[Path, NDArray[np.uint8], list[str], tuple[str, ...]], None]


def write_candidate(root: Path, model: str, photos: Path, size: int, write_program: WriteProgram | None = None) -> None:
    """Batch, program and evaluation of `model`, which params.yaml in `root` must have, from class folders."""
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
    evaluate(root, model)


def _rows(photos: Path) -> pd.DataFrame:
    files = sorted(photos.glob("*/*"))
    payloads = [path.read_bytes() for path in files]
    return pd.DataFrame(
        {
            "id": [hashlib.sha256(payload).hexdigest() for payload in payloads],
            "file_name": [path.name for path in files],
            "label": [path.parent.name for path in files],
            "split": ["test" if index % 3 == 0 else "train" for index in range(len(files))],
            "group": [path.name for path in files],
            "source": "digits",
            "bytes": payloads,
        }
    )


def _write_batch(folder: Path, rows: pd.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(folder / "first.parquet")
    rows.drop(columns="bytes").to_parquet(folder / "first.index")
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
