"""What `mmsp_gpu` is made of."""
