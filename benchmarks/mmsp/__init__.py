"""What the benchmarks of MM-SP share: shapes, schemes, and how they are measured."""
