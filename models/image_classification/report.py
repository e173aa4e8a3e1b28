"""The report's sections on pictures: what is taken for what, how far confidence can be trusted, the worst mistakes."""

from html import escape

from models.common.kind import ReportJob, ReportSection
from models.common.reporting.classification import confidence, mistakes
from models.common.reporting.confusion import confusions
from models.common.reporting.image import thumbnail

THUMBNAIL = 112  # px, longer side


def report(job: ReportJob) -> list[ReportSection]:
    """Confusions, reliability, and the worst mistakes with their pictures."""
    return [
        ReportSection("Confusions", confusions(job)),
        ReportSection("Confidence", confidence(job)),
        ReportSection("Worst mistakes", mistakes(job, "pictures", _card, _grid)),
    ]


def _grid(cards: list[str]) -> str:
    return f'<div class="grid">{"".join(cards)}</div>'


def _card(payload: bytes, caption: str, title: str) -> str:
    picture = thumbnail(payload, THUMBNAIL)
    return f'<figure title="{escape(title, quote=True)}">{picture}<figcaption>{caption}</figcaption></figure>'
