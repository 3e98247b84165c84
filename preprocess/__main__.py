"""``python -m preprocess`` is the same as ``tagger preprocess``."""

from tagger.cli.main import main

if __name__ == "__main__":
    main(["preprocess"])
