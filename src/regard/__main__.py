"""`python -m regard` is `regard`: for torchrun, which starts a module."""

from regard.app.cli import main

raise SystemExit(main())
