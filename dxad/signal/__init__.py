"""Arithmetic over stretches of rows, each result the same to the bit however rows are cut."""
