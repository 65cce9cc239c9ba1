"""What the benchmarks of the data side share: videos to work on, and work done in processes of their own."""
