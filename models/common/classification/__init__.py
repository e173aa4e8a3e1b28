"""One class for an example: labels, metrics, report."""
