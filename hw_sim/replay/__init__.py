"""Recorded data sets: csvfile.py reads, record.py knows times and labels, playing.py and wiring.py play."""
