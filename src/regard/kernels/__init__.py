"""Fast roads, one file for each part or triple and device; who uses the parts makes them known to the registry."""
