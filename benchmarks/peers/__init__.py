"""What we measure ourselves against, each as its authors run it."""
