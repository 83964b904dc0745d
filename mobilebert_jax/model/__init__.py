"""The network: embeddings, bottlenecked blocks, heads; one set of settings per published size."""
