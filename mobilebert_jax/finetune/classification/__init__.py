"""Sentences and sentence pairs from files: classes and numbers."""
