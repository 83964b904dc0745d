"""What surrounds the training loop: the record of a run, its progress and its report."""
