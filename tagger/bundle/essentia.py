"""What a bundle is, in the form of the metadata that lies beside Essentia's models.

The keys are those of https://essentia.upf.edu/models.html, which tools of the field read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tagger.bundle.read import Description, Export
from tagger.scoring.scorer import SCORES

_PURPOSES = {SCORES: "predictions"}


def essentia_metadata(
    description: Description,
    exports: Sequence[Export],
    *,
    tags: Sequence[str],
    metrics: Mapping[str, Mapping[str, float]],
    sample_rate: int,
) -> dict[str, Any]:
    """Describe a bundle as Essentia describes its models.

    Parameters
    ----------
    description, exports
        Of the bundle.
    tags : sequence of str
        Names of the scores.
    metrics : mapping
        What is known of its quality: title -> name -> figure.
    sample_rate : int
        Of the audio that its front end takes.
    """
    outputs = [
        {
            "name": name,
            "type": "float",
            "shape": [1, size],
            "output_purpose": _PURPOSES.get(name, "embeddings"),
        }
        for name, size in description.outputs.items()
    ]
    return {
        "name": description.name,
        "type": "auto-tagging" if tags else "feature-extractor",
        "link": "",
        "version": description.tagger_version,
        "description": description.card.get("Model", ""),
        "author": description.card.get("Source", ""),
        "email": "",
        "release_date": description.created[:10],
        "framework": "litert",
        "framework_version": "",
        # Of a clip head with tags of its own, those; the network's have no names then.
        "classes": list(tags),
        "model_types": [export.format for export in exports],
        "dataset": {
            "name": description.card.get("Training data", ""),
            "citation": "",
            "size": "",
            "metrics": {
                f"{title}: {name}": value
                for title, figures in metrics.items()
                for name, value in figures.items()
            },
        },
        "schema": {
            "inputs": [
                {"name": name, "type": "float", "shape": [1, *shape]}
                for name, shape in description.input_shapes.items()
            ],
            "outputs": outputs,
        },
        "inference": {"sample_rate": sample_rate, "algorithm": description.front_end["name"]},
    }
