"""``python -m reactor`` is ``reactor``."""

from reactor.cli.main import main

if __name__ == "__main__":
    main()
