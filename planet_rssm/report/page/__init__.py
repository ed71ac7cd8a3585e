"""The page of `planet report`: what run folders contain, as one HTML file."""
