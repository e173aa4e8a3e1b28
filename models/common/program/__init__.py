"""The exported program: written, proven, measured, served."""
