"""`python -m regard` is `regard`: for torchrun, which starts a module."""

from regard.cli import main

raise SystemExit(main())
