"""Variants of one experiment, trained with several seeds and compared."""
