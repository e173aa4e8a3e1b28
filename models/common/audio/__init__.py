"""Sounds: decoded, checked, augmented, and the networks that take them."""
