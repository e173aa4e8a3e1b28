"""The report's sections on commands: what is taken for what, how far confidence can be trusted, the worst mistakes."""

from models.common.kind import ReportJob, ReportSection
from models.common.reporting.audio import sound_card, sound_grid
from models.common.reporting.classification import confidence, mistakes
from models.common.reporting.confusion import confusions


def report(job: ReportJob) -> list[ReportSection]:
    """Confusions, reliability, and the worst mistakes to look at and to hear."""
    return [
        ReportSection("Confusions", confusions(job)),
        ReportSection("Confidence", confidence(job)),
        ReportSection("Worst mistakes", mistakes(job, "recordings", sound_card, sound_grid)),
    ]
