"""Environments, renderers and worker processes; nothing in here imports torch."""
