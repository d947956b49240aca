"""What a value is: its encodings, its order, its ids. Pure functions."""
