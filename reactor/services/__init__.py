"""What the server offers on top of engine and functions."""
