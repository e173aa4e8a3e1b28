"""Class maps and their measure, for whatever names the class of every pixel. Needs no torch."""
