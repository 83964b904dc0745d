"""The nine GLUE tasks: their files, metrics and test-server submission."""
