"""Deliveries made on the spot, one module for each kind: `make demo KIND=…` and the contract's test feed on them.

Nothing is fetched, and the same code always makes the same files.
"""
