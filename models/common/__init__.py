"""What Ratchet's kinds share: called, never inherited."""
