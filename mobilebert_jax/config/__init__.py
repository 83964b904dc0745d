"""Settings: dataclasses with their bounds, overrides, checks across fields, digests."""
