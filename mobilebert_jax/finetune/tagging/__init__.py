"""One label a word: CoNLL files and span F1."""
