"""Pictures of a run: videos and curves."""
