"""What recipes on text share: words as numbers, encoders and decoders, and how sentences are read and written."""
