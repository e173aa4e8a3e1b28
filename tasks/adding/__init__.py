"""Parts of `ratchet add`."""
