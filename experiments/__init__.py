"""What scripts and benchmarks share: recipes by network, and one way to run them."""
