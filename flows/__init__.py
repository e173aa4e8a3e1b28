"""When things happen and in what order. Prefect only; no torch and no file handling here."""
