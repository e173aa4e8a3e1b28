"""Parts of packaging: building a Bento and proving it."""
