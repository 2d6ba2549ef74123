"""`python -m cope_train`."""

from cope_train.cli import main

if __name__ == "__main__":
    main()
