"""Finished networks written in other formats, run, scored and described."""
