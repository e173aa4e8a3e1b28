"""Photos: decoded, checked, resized, augmented, and the networks that take them."""
