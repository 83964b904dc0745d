"""Fine-tuning: tasks are read, tokenized into features, trained on and scored."""
