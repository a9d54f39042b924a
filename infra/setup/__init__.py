"""Set-up: the virtual environment and the jars, exactly as the lock files name them."""
