"""What learns. One folder per kind; `models/common/` holds the parts that kinds share by calling them."""
