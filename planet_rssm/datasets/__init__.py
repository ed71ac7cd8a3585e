"""Sets of episodes from and to the formats of other libraries."""
