"""A distribution over what? Every `over` maps (scores, mask) to positions: scores (*B, Q, K), mask of bool or None."""
