"""The plug-ins that bring readings in: one file each."""
