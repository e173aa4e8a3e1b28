"""What may be deleted, category by category; tasks/gc.py does it."""
