"""Cache: where datasets lie, what is whole of them, and how they get and lose their names."""
