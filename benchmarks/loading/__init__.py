"""Frames and samples on their way into training: our shards and loader beside other readers and loaders."""
