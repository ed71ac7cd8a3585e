"""Episodes, on disk and sampled; nothing in here imports torch."""
