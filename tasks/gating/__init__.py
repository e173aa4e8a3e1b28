"""The gate: a pure function of scores and a policy. Nothing here touches files."""
