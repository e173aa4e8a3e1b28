"""Parts of the stage `validate`."""
