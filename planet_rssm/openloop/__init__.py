"""What a model imagines of recorded episodes, beside what happened."""
