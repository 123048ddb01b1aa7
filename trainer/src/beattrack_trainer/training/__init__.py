"""From feature stores to a trained run."""
