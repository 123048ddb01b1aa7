"""Data sets on disk: folders, annotations, folds, checks, and stores of their features."""
