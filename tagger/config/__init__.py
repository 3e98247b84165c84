"""Configuration: YAML -> validated, frozen `Config` -> saved effective config."""

from tagger.config.files import load_config, override, with_overrides
from tagger.config.sections import (
    MAY_DIFFER,
    AugmentConfig,
    CalibrationConfig,
    Config,
    FitConfig,
    StreamConfig,
    TrainConfig,
)

__all__ = [
    "MAY_DIFFER",
    "AugmentConfig",
    "CalibrationConfig",
    "Config",
    "FitConfig",
    "StreamConfig",
    "TrainConfig",
    "load_config",
    "override",
    "with_overrides",
]
