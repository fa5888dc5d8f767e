"""Fast roads, one file for each triple and device; importing the package makes them known to the registry."""

from saccade.kernels import scaled_dot_sdpa

__all__ = ["scaled_dot_sdpa"]
