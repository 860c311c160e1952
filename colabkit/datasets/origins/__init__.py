"""Origins: what a dataset is made from, behind one contract."""
