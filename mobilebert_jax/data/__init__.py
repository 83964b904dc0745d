"""From text to batches: documents, sentences, tokens, records, pretraining examples, the feed."""
