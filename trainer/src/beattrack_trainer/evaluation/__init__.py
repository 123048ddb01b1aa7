"""What a model is worth: events of the live path against annotations, and reports of it."""
