"""Reading: where bytes come from, read ahead in parallel and again after a failure."""
