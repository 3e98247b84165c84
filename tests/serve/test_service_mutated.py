"""Promises of the service that hold for any request and any file; more of them in the campaign."""

import numpy as np
import pytest
import soundfile as sf
from campaigns import quick_some
from hypothesis import HealthCheck, given, settings
from signals import RATE, noise
from small_bundle import make_bundle

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")

from fastapi.testclient import TestClient  # noqa: E402

from tagger.serve.app import create_app  # noqa: E402
from tagger.serve.settings import ServeSettings  # noqa: E402

# What says that it cannot be done now, or would take too long: not that something is broken.
FINE = {503, 504, 507}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("model") / "bundle"
    make_bundle(root)
    return root


@pytest.fixture
def app(bundle):
    return create_app(ServeSettings(models=(str(bundle),), max_mb=2, timeout_seconds=20))


def test_no_request_that_the_description_allows_breaks_it(app):
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    with TestClient(app, raise_server_exceptions=True) as client:
        n_operations = 0
        for found in described.get_all_operations():
            operation = found.ok()
            if operation.path.endswith("/events"):
                # Of a job that is not there it is the same answer.
                continue
            n_operations += 1

            @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def ask(case):
                answer = case.call(session=client)
                assert answer.status_code < 500 or answer.status_code in FINE, answer.text
                if answer.status_code >= 400:
                    assert set(answer.json()) == {"error"}

            ask()
        counted = client.get("/metrics").text
    assert n_operations >= 9
    asked = sum(
        float(line.split()[-1])
        for line in counted.splitlines()
        if line.startswith("tagger_requests_total")
    )
    assert asked >= 5 * n_operations


@pytest.mark.parametrize("n_files", quick_some([150, 2000], [150]))
def test_no_upload_breaks_it(app, tmp_path, n_files, seed):
    rng = np.random.default_rng(seed)
    whole = []
    for suffix in ("wav", "flac", "ogg", "mp3", "aiff"):
        sf.write(tmp_path / f"a.{suffix}", noise(1), RATE)
        whole.append((tmp_path / f"a.{suffix}").read_bytes())
    seen = set()
    with TestClient(app) as client:
        for number in range(n_files):
            content = bytearray(whole[number % len(whole)])
            for place in rng.integers(len(content), size=rng.integers(1, 40)):
                content[place] = rng.integers(256)
            if number % 3 == 0:
                del content[rng.integers(len(content)) :]
            route = ("/v1/tags", "/v1/segments", "/", "/v1/embeddings")[number % 4]
            if number % 2:
                answer = client.post(route, content=bytes(content))
            else:
                answer = client.post(route, files={"file": (f"{number}.mp3", bytes(content))})
            seen.add(answer.status_code)
            assert answer.status_code in (200, 422), answer.text
            if answer.status_code == 422:
                line = answer.json()["error"]
                assert "\n" not in line and "/proc" not in line and "Traceback" not in line
        assert client.get("/healthz").status_code == 200
    assert seen == {200, 422}
