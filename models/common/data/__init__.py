"""From what people deliver to batches on disk, and from batches to arrays."""
