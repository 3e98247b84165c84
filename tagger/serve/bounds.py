"""What a service allows unless told; apart, as ``--help`` must not wait for pydantic."""

MAX_MB = 200.0
MAX_SECONDS = 900.0
AT_WORK = 32
WAITING = 64
TIMEOUT_SECONDS = 120.0
