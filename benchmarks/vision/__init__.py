"""Video frames encoded over ranks, and visual tokens brought to their seats: our way and others'."""
