"""`ratchet up`: the loop that runs by itself. A Prefect server, the deployments of every model, and what runs them."""
