"""What can go wrong with a request, with the status that says so."""

from tagger.base.errors import AudioError, ModelError, TaggerError


class RequestError(TaggerError):
    """A request that is not answered.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        One line with the remedy.
    retry_seconds : int, optional
        When to ask again.
    """

    def __init__(self, status: int, message: str, *, retry_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_seconds = retry_seconds


def request_error(error: TaggerError, *, path: str, name: str) -> RequestError:
    """Say what is wrong with an upload, by the name that its client knows.

    Parameters
    ----------
    error : TaggerError
        What was raised.
    path : str
        The file here, which nobody outside is told of.
    name : str
        What the client called it.
    """
    if isinstance(error, RequestError):
        return error
    message = " ".join(str(error).replace(path, name).split())
    if isinstance(error, AudioError):
        return RequestError(422, message)
    status = 500 if isinstance(error, ModelError) else 422
    return RequestError(status, message)


def too_many_wait() -> RequestError:
    """Error of a request for which there is no room at the moment."""
    return RequestError(503, "too many requests wait; ask again in a moment", retry_seconds=2)
