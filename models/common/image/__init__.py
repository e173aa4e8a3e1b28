"""Photos: decoded, checked, laid out, augmented, and the networks that take them."""
