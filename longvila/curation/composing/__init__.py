"""Sets that are made, not found: needle videos, recall texts, single frames with captions."""
