"""The plug-ins that score windows: one file each."""
