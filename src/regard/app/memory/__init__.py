"""What recipes of machines with a memory share: their tasks, and the heads that read and write."""
