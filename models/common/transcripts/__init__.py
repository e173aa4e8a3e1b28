"""What is said, as text: how it is spelt, how CTC's frames become it, how two texts differ. Needs no torch."""
