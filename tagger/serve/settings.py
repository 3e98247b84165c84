"""What a service allows."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tagger.serve import bounds

MEGABYTE = 1 << 20


class ServeSettings(BaseModel):
    """Bounds of a service; all have a default that suits one machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names, bundles or runs; the first is the one that is asked where none is named."""
    jobs: Annotated[int | None, Field(ge=1)] = None
    """Threads that decode, and threads that compute; none: one per processor."""
    max_mb: Annotated[float, Field(gt=0)] = bounds.MAX_MB
    """Of an upload, which is cut off there."""
    max_seconds: Annotated[float, Field(gt=0)] = bounds.MAX_SECONDS
    """Of audio in a request; longer ones are for jobs."""
    max_job_seconds: Annotated[float, Field(gt=0)] = bounds.MAX_JOB_SECONDS
    """Of audio in a job."""
    at_work: Annotated[int, Field(ge=1)] = bounds.AT_WORK
    """Requests that are computed together."""
    waiting: Annotated[int, Field(ge=0)] = bounds.WAITING
    """Requests that wait behind them; beyond, the answer is 503."""
    waiting_jobs: Annotated[int, Field(ge=1)] = bounds.WAITING_JOBS
    """Jobs that wait behind the one that is heard; beyond, the answer is 503."""
    timeout_seconds: Annotated[float, Field(gt=0)] = bounds.TIMEOUT_SECONDS
    """For an upload, and again for its answer."""
    kept_seconds: Annotated[float, Field(gt=0)] = bounds.KEPT_SECONDS
    """How long the result of a job is kept."""
    kept_jobs: Annotated[int, Field(ge=1)] = bounds.KEPT_JOBS
    """Jobs that are known at a time, with their results."""
    live: Annotated[int, Field(ge=0)] = bounds.LIVE
    """Microphones that are listened to at a time."""
    token: str | None = None
    """What clients must bring; none: anybody may ask."""
