"""A program's answers to texts whose language is known, one row each."""

import numpy as np
import pandas as pd

from models.common.classification.metrics import class_table
from models.common.kind import ScoreJob
from models.common.program.program import Program, softmax
from models.text_language import COLUMNS
from models.text_language.dataset import texts


def score(job: ScoreJob) -> pd.DataFrame:
    """The table of any classifier."""
    program, shares = Program(job.program), texts(job.manifest, job.batches, job.home)
    logits = program.run(images=shares.take(np.arange(len(shares))))["logits"]
    return class_table(job.manifest, softmax(logits), program.spec.labels, COLUMNS)
