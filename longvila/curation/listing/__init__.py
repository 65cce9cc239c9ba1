"""From a source list to single sources: its entries, and what its folders and tables hold at that time."""
