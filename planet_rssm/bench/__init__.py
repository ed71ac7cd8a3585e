"""How fast this machine is: benchmarks, as ratios taken in one run."""
