"""The plug-ins that carry records out: one file each."""
