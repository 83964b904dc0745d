"""Model folders of Hugging Face transformers: weights, config.json, tokenizer files."""
