"""The report's own section."""

from models.common.kind import ReportJob, ReportSection


def report(job: ReportJob) -> list[ReportSection]:
    """The mistakes, counted."""
    wrong = int((job.candidate["correct"] == 0).sum())
    return [ReportSection("Mistakes", f"<p>{wrong} of {len(job.candidate)} texts were taken for another language.</p>")]
