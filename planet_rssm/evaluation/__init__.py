"""How good an agent is: returns, intervals, published scores."""
