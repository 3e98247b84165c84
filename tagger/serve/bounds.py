"""What a service allows unless told; apart, as ``--help`` must not wait for pydantic."""

MAX_MB = 200.0
MAX_SECONDS = 900.0
MAX_JOB_SECONDS = 6 * 3600.0
AT_WORK = 32
WAITING = 64
WAITING_JOBS = 20
KEPT_JOBS = 200
KEPT_SECONDS = 3600.0
LIVE = 4
TIMEOUT_SECONDS = 120.0
