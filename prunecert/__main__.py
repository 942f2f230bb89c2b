"""``python -m prunecert COMMAND``: the command line, where the script ``prunecert`` is not on the path."""

from toolkit.cli import main

if __name__ == "__main__":
    main()
