"""A run on disk: its folder, its settings and its checkpoints."""
