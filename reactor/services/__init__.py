"""What the server offers on top of engine and functions. Knows no wire and no store."""
