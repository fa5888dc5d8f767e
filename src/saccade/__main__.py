"""`python -m saccade` is `saccade`: for torchrun, which starts a module."""

from saccade.cli import main

raise SystemExit(main())
