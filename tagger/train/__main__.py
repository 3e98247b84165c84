"""``python -m tagger.train`` is the same as ``tagger train``."""

from tagger.cli.main import main

if __name__ == "__main__":
    main(["train"])
