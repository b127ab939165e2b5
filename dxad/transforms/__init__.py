"""The plug-ins that reshape rows: one file each, named by what it does."""
