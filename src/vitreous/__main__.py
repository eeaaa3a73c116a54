"""`python -m vitreous` is the program `vitreous`."""

from vitreous.cli import main

raise SystemExit(main())
