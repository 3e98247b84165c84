"""Tags as a table for people."""

from typing import TYPE_CHECKING

from tagger.writers import Writer

if TYPE_CHECKING:
    from tagger.predict import Prediction

_BAR_CELLS = 20


class TableWriter(Writer):
    """A line with the file's name, then a line per tag: score, bar, name."""

    def write(self, prediction: "Prediction") -> None:  # noqa: D102 (the contract documents it)
        end = prediction.times[-1] + prediction.window_seconds
        length = f"< {prediction.window_seconds:.2f} s" if prediction.padded else f"{end:.1f} s"
        print(f"{prediction.path} ({length})", file=self.stream)
        top = self.top(prediction)
        if not top:
            print(f"  no tag scores {self.threshold:g} or more", file=self.stream)
        for tag, score in top:
            bar = "#" * round(score * _BAR_CELLS)
            print(f"  {score:.3f} {bar:<{_BAR_CELLS}} {tag}", file=self.stream)


ENTRY = TableWriter
