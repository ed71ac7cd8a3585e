"""Where a run's return is lost: in the model, the planner or the filter."""
