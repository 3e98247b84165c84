"""Tags as JSON Lines: one object per file, as soon as the file is done."""

import json
from typing import TYPE_CHECKING

from tagger.writers import Writer

if TYPE_CHECKING:
    from tagger.predict import Prediction


class JsonWriter(Writer):
    """``{"path": ..., "seconds": ..., "tags": [{"tag": ..., "score": ...}, ...]}`` per line."""

    def write(self, prediction: "Prediction") -> None:  # noqa: D102 (the contract documents it)
        content = {
            "path": prediction.path,
            "seconds": round(float(prediction.times[-1]) + prediction.window_seconds, 6),
            "padded": prediction.padded,
            "tags": [{"tag": tag, "score": round(score, 6)} for tag, score in self.top(prediction)],
        }
        print(json.dumps(content, ensure_ascii=False), file=self.stream)


ENTRY = JsonWriter
