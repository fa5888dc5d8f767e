"""Fast roads: a folder for each mechanism, a file for each device, found by the registry."""
