"""What runs need of a framework: the protocols, which it is, and an adapter for each."""
