"""The training loop and all that it needs: optimizers, freezing, checkpoints, logs."""
