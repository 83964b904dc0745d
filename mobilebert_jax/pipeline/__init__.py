"""The stages of a run, in their order, and what each one starts from."""
