"""What keeps a daemon running: clock, supervisor, back-off, health, metrics, logs. It knows no sensors."""
