"""Trained runs to the Hugging Face Hub: what is sent, and the card that describes it."""
