"""Where arrays live: the device mesh and the table from logical to mesh axes."""
