"""What recipes on images share: networks, how pictures are read, and how they are varied in training."""
