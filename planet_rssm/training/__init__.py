"""Learning: the loop, the optimiser step, metrics and what a person sees of them."""
