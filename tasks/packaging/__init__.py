"""Parts of packaging: building a Bento and smoke-testing it."""
