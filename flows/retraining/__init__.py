"""One retrain: its steps, and who carries them out, this process alone or Prefect."""
