"""The project around a model: git, DVC, params, workspaces, the registry."""
