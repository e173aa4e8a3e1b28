"""The exported program: written, checked, measured, served."""
