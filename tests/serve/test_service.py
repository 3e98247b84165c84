"""Promises of the service: answers, bounds, and what it never does."""

import gc
import inspect
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from signals import RATE, noise, sine
from small_bundle import make_bundle

from preprocess.signal.audio import resample

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from fastapi.testclient import TestClient  # noqa: E402

from tagger.cli.serving import serve  # noqa: E402
from tagger.serve import guards  # noqa: E402
from tagger.serve.app import Service, create_app  # noqa: E402
from tagger.serve.jobs import Jobs  # noqa: E402
from tagger.serve.settings import ServeSettings  # noqa: E402
from tagger.serve.sound import of_wav_stream  # noqa: E402
from tagger.tagging.tagger import Tagger  # noqa: E402

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("model") / "bundle"
    make_bundle(root)
    return root


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    sf.write(path, noise(4), RATE)
    return path


@pytest.fixture(scope="module")
def client(bundle):
    with TestClient(create_app(ServeSettings(models=(str(bundle),)))) as found:
        yield found


def bounded(bundle, **bounds):
    return TestClient(create_app(ServeSettings(models=(str(bundle),), **bounds)))


def refused(answer, status, *words):
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    line = answer.json()["error"]
    assert "\n" not in line and all(word in line for word in words), line
    return line


def n_open(process):
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


# Answers


def test_tags_are_those_of_the_model_highest_first(client, bundle, song):
    answer = client.post(
        "/v1/tags", content=song.read_bytes(), headers={"X-File-Name": "my%20song.wav"}
    )
    said = answer.json()
    wanted = Tagger.load(bundle).predict(song).top()
    assert [tag["label"] for tag in said["tags"]] == [tag["label"] for tag in wanted]
    for found, tag in zip(said["tags"], wanted, strict=True):
        assert found["score"] == pytest.approx(tag["score"], abs=1e-4)
    assert said["file"] == "my song.wav" and said["seconds"] == pytest.approx(4)
    assert said["model"] and said["version"] and said["decode_ms"] > 0 and said["compute_ms"] > 0


def test_a_form_is_answered_as_a_body_is(client, song):
    of_body = client.post("/v1/tags", content=song.read_bytes()).json()
    of_form = client.post("/v1/tags", files={"file": ("a.wav", song.read_bytes())}).json()
    assert of_form["tags"] == of_body["tags"] and of_form["file"] == "a.wav"


def test_tags_may_be_few_or_those_that_apply(client, song):
    content = song.read_bytes()
    everything = client.post("/v1/tags", content=content).json()["tags"]
    assert client.post("/v1/tags?top_k=1", content=content).json()["tags"] == everything[:1]
    least = everything[0]["score"]
    above = client.post(f"/v1/tags?threshold={least}", content=content).json()["tags"]
    assert above and all(tag["score"] >= least for tag in above)
    assert client.post("/v1/tags?threshold=auto", content=content).status_code == 200


def test_segments_have_scores_over_time(client, bundle, song):
    said = client.post("/v1/segments", content=song.read_bytes()).json()
    wanted = Tagger.load(bundle).predict(song)
    np.testing.assert_allclose(said["taggram"], wanted.taggram, atol=1e-4)
    np.testing.assert_allclose(said["times"], wanted.times, atol=1e-3)
    assert said["labels"] == list(wanted.tags)
    assert said["thresholds"] is None or len(said["thresholds"]) == len(wanted.tags)


def test_embeddings_are_those_of_the_layer(client, bundle, song):
    said = client.post("/v1/embeddings", content=song.read_bytes()).json()
    wanted = Tagger.load(bundle).embed(song, layer=said["layer"])
    np.testing.assert_allclose(said["values"], wanted.values, atol=1e-3)
    refused(client.post("/v1/embeddings?layer=none", content=b"x"), 422, "no layer 'none'")


def test_the_reports_own_request_gets_its_three_keys(client, song):
    said = client.post("/", files={"file": ("a.wav", song.read_bytes())}).json()
    assert set(said) == {"duration", "message", "status"}
    assert said["status"] == "success" and said["message"] and said["duration"] >= 0


def test_models_health_and_figures_are_told(client, song):
    (model,) = client.get("/v1/models").json()["models"]
    assert model["tags"] > 0
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.post("/v1/tags", content=song.read_bytes())
    figures = client.get("/metrics").text
    assert 'tagger_requests_total{route="/v1/tags",status="200"}' in figures
    assert "tagger_audio_seconds_total" in figures
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/tags", "/v1/segments", "/v1/embeddings", "/v1/jobs", "/v1/models", "/"} <= set(
        paths
    )


# What is refused


def test_bad_requests_are_one_line_with_the_remedy(client, song):
    refused(client.post("/v1/tags", content=b"no music" * 100), 422, "the upload: not decodable")
    refused(client.post("/v1/tags", content=b""), 422, "no body", "field 'file'")
    refused(client.post("/v1/tags", files={"other": ("a.wav", b"x")}), 422, "form has no file")
    refused(client.post("/v1/tags", files={"file": ("a.wav", b"")}), 422)
    refused(client.post("/v1/tags?model=none", content=b"x"), 404, "no model 'none'")
    refused(client.post("/v1/tags?top_k=0", content=b"x"), 422, "top_k")
    refused(client.get("/v1/nothing"), 404)
    refused(client.get("/v1/tags"), 405)
    refused(client.get("/v1/jobs/none"), 404, "no such job")
    kind = {"content-type": "multipart/form-data; boundary=x"}
    refused(client.post("/v1/tags", content=b"--y\r\nnonsense", headers=kind), 422, "form")


def test_no_file_of_the_server_is_named_or_read(client):
    for name in ("/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "%2e%2e%2fetc%2fpasswd"):
        line = refused(
            client.post("/v1/tags", content=b"x" * 99, headers={"X-File-Name": name}), 422
        )
        assert "/etc" not in line and "/proc" not in line and "/tmp" not in line
        assert client.get(f"/page/{name}").status_code in (404, 405)
    assert "/proc" not in refused(client.post("/v1/tags", content=b"RIFF" + bytes(90)), 422)


def test_an_upload_that_is_too_large_is_cut_off_while_it_arrives(bundle):
    with bounded(bundle, max_mb=0.1) as client:
        refused(client.post("/v1/tags", content=bytes(3 << 20)), 413, "larger than 0.1 MB")
        seen = []

        def endless():
            for _ in range(10_000):
                seen.append(1)
                yield bytes(1 << 16)

        refused(client.post("/v1/tags", content=endless()), 413)


def test_audio_that_is_too_long_is_for_a_job(bundle, tmp_path):
    sf.write(tmp_path / "long.wav", noise(20), RATE)
    with bounded(bundle, max_seconds=5) as client:
        refused(
            client.post("/v1/tags", content=(tmp_path / "long.wav").read_bytes()), 413, "/v1/jobs"
        )


def test_beyond_what_may_wait_clients_are_told_when_to_ask_again(bundle, song):
    service = Service(ServeSettings(models=(str(bundle),), at_work=1, waiting=0))
    (desk,) = service.desks.values()
    begun, go = threading.Event(), threading.Event()
    attempt = desk.tagger.attempt

    def slowly(*arguments, **options):
        begun.set()
        go.wait(20)
        yield from attempt(*arguments, **options)

    desk.tagger.attempt = slowly
    with TestClient(create_app(service.settings, service)) as client:
        answers = []
        first = threading.Thread(
            target=lambda: answers.append(client.post("/v1/tags", content=song.read_bytes()))
        )
        first.start()
        assert begun.wait(20)
        full = client.post("/v1/tags", content=song.read_bytes())
        refused(full, 503, "too many requests")
        assert int(full.headers["Retry-After"]) >= 1
        assert client.get("/readyz").status_code == 503
        go.set()
        first.join(20)
        assert answers[0].status_code == 200
        assert client.post("/v1/tags", content=song.read_bytes()).status_code == 200


def test_a_request_that_takes_too_long_is_given_up_and_harms_no_other(bundle, song):
    service = Service(ServeSettings(models=(str(bundle),), timeout_seconds=0.5))
    (desk,) = service.desks.values()
    attempt, waits = desk.tagger.attempt, [1.5]

    def slowly(*arguments, **options):
        time.sleep(waits.pop() if waits else 0)
        yield from attempt(*arguments, **options)

    desk.tagger.attempt = slowly
    with TestClient(create_app(service.settings, service)) as client:
        refused(client.post("/v1/tags", content=song.read_bytes()), 504, "longer than 0.5 s")
        time.sleep(1.3)
        assert client.post("/v1/tags", content=song.read_bytes()).status_code == 200
        assert desk.n_inside == 0


def test_a_token_is_wanted_where_one_is_set(bundle, song):
    with bounded(bundle, token=TOKEN) as client:
        refused(client.post("/v1/tags", content=song.read_bytes()), 401, "Bearer")
        refused(client.post("/", content=song.read_bytes()), 401)
        wrong = {"Authorization": f"Bearer {TOKEN}x"}
        refused(client.post("/v1/tags", content=song.read_bytes(), headers=wrong), 401)
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("/v1/tags", content=song.read_bytes(), headers=right).status_code == 200
        # The page asks for it, and a watchdog has none.
        assert client.get("/").status_code == 200 and client.get("/healthz").status_code == 200
        refused(client.get("/metrics"), 401)


def test_every_answer_has_the_headers_that_keep_browsers_safe(client):
    for answer in (client.get("/"), client.get("/v1/models"), client.get("/nothing")):
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


def test_each_request_is_a_line_of_json(client, capfd):
    capfd.readouterr()
    client.get("/healthz")
    (line,) = [json.loads(one) for one in capfd.readouterr().err.splitlines()]
    assert (line["path"], line["status"], line["event"]) == ("/healthz", 200, "request")


# Jobs


def test_a_job_tells_how_far_it_is_and_keeps_its_result(client, song):
    job = client.post("/v1/jobs", content=song.read_bytes(), headers={"X-File-Name": "a.wav"})
    assert job.status_code == 202
    found = job.json()
    with client.stream("GET", f"/v1/jobs/{found['id']}/events") as events:
        lines = [line for line in events.iter_lines() if line.startswith("data: ")]
    states = [json.loads(line.removeprefix("data: "))["state"] for line in lines]
    assert states[-1] == "done"
    done = client.get(f"/v1/jobs/{found['id']}").json()
    assert done["result"]["labels"] and done["owner"] == found["owner"]
    assert (
        done["result"]["tags"]
        == client.post("/v1/segments", content=song.read_bytes()).json()["tags"]
    )


def test_a_job_that_fails_says_why(client):
    found = client.post("/v1/jobs", content=b"no music" * 50).json()
    for _ in range(200):
        status = client.get(f"/v1/jobs/{found['id']}").json()
        if status["state"] == "failed":
            break
        time.sleep(0.02)
    assert "not decodable" in status["error"] and "/proc" not in status["error"]


def test_jobs_that_are_over_make_room_for_others(bundle, song):
    with bounded(bundle, kept_jobs=5) as client:
        for _ in range(12):
            found = client.post("/v1/jobs", content=b"no music" * 50)
            assert found.status_code == 202
            while client.get(f"/v1/jobs/{found.json()['id']}").json()["state"] != "failed":
                time.sleep(0.01)
        assert client.post("/v1/jobs", content=song.read_bytes()).status_code == 202


def test_jobs_beyond_those_that_may_wait_are_refused(bundle, song, monkeypatch):
    heard, go_on = threading.Event(), threading.Event()

    def slow(*_):
        heard.set()
        go_on.wait(30)

    monkeypatch.setattr(Jobs, "_run", slow)
    with bounded(bundle, waiting_jobs=1) as client:
        assert client.post("/v1/jobs", content=song.read_bytes()).status_code == 202
        assert heard.wait(30)
        assert client.post("/v1/jobs", content=song.read_bytes()).status_code == 202
        refused(client.post("/v1/jobs", content=song.read_bytes()), 503, "too many", "ask again")
        go_on.set()


def test_each_bound_is_an_option_with_the_same_default():
    options = inspect.signature(serve).parameters
    names = {name: name for name in ServeSettings.model_fields} | {"timeout_seconds": "timeout"}
    for name, field in ServeSettings.model_fields.items():
        if name not in ("models", "token"):
            assert options[names[name]].default == field.default, name


def test_results_are_forgotten_in_time(bundle, song, monkeypatch):
    with bounded(bundle, kept_seconds=0.2) as client:
        found = client.post("/v1/jobs", content=song.read_bytes()).json()
        for _ in range(200):
            answer = client.get(f"/v1/jobs/{found['id']}")
            if answer.status_code == 404:
                break
            time.sleep(0.02)
        refused(answer, 404, "no such job here")


# Live


def test_what_a_microphone_hears_is_tagged_once_a_second(client, bundle):
    with client.websocket_connect("/v1/live") as socket:
        socket.send_json({"token": ""})
        hello = socket.receive_json()
        rate = hello["sample_rate"]
        sound = sine(440, 3, rate=rate, amplitude=0.3).astype("<f4")
        said = []
        for start in range(0, len(sound), rate // 4):
            socket.send_bytes(sound[start : start + rate // 4].tobytes())
        for _ in range(3):
            said.append(socket.receive_json())
    assert [round(one["time"]) for one in said] == [1, 2, 3]
    assert all(len(one["scores"]) == len(hello["tags"]) for one in said)


def test_a_live_client_without_a_token_or_with_nonsense_is_told(bundle):
    with bounded(bundle, token=TOKEN, live=1) as client:
        with client.websocket_connect("/v1/live") as socket:
            socket.send_json({"token": "wrong"})
            assert "token" in socket.receive_json()["error"]
        with client.websocket_connect("/v1/live") as socket:
            socket.send_json({"token": TOKEN})
            assert "tags" in socket.receive_json()
            with client.websocket_connect("/v1/live") as second:
                second.send_json({"token": TOKEN})
                assert "too many microphones" in second.receive_json()["error"]
            socket.send_bytes(b"abc")
            assert "float32" in socket.receive_json()["error"]


@pytest.mark.parametrize("first", ["bytes", "nonsense", '{"token": "\\ud800"}', "[" * 5000])
def test_a_first_message_that_is_none_is_told_and_tells_no_model(bundle, first, capfd):
    with (
        bounded(bundle, token=TOKEN) as client,
        client.websocket_connect("/v1/live?model=zz") as socket,
    ):
        if first == "bytes":
            socket.send_bytes(b"123")
        else:
            socket.send_text(first)
        said = socket.receive_json()["error"]
    assert "token" in said and "model" not in said
    assert "Traceback" not in capfd.readouterr().err


def test_small_differences_between_clients_do_not_matter(client, song):
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body += song.read_bytes() + b"\r\n--x--\r\n"
    kind = {"content-type": "Multipart/Form-Data; boundary=x"}
    assert client.post("/v1/tags", content=body, headers=kind).json()["file"] == "a.wav"
    assert client.head("/").status_code == 200 and client.head("/healthz").status_code == 200


def test_what_nobody_expected_is_one_line_too(bundle, song):
    service = Service(ServeSettings(models=(str(bundle),)))
    (desk,) = service.desks.values()

    def broken(*_, **__):
        raise RuntimeError("/a/path/of/the/server")

    desk.tagger.attempt = broken
    with TestClient(create_app(service.settings, service)) as client:
        line = refused(client.post("/v1/tags", content=song.read_bytes()), 500, "RuntimeError")
        assert "/a/path" not in line and desk.n_inside == 0


# The process


def started(bundle, *arguments):
    words = [sys.executable, "-m", "tagger", "serve", "--model", bundle, "--port", "0", *arguments]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    line = process.stderr.readline()
    assert "page and service: http://127.0.0.1:" in line, line
    return process, line.split()[-1].rstrip("/")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_and_answers_what_is_under_way(bundle, tmp_path, number):
    process, address = started(bundle)
    answers = []
    sf.write(tmp_path / "long.wav", noise(120), RATE)
    content = (tmp_path / "long.wav").read_bytes()
    threads = [
        threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{address}/v1/tags", content=content, timeout=60)
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    process.send_signal(number)
    for thread in threads:
        thread.join(30)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 0 and "Traceback" not in said
    assert [answer.status_code for answer in answers].count(200) == 4


def test_a_signal_right_after_the_address_is_told_ends_it(bundle):
    for _ in range(3):
        process, _ = started(bundle)
        process.terminate()
        assert process.wait(20) == 0
        process.stderr.close()


def test_who_follows_a_job_does_not_hold_the_end(bundle, tmp_path):
    sf.write(tmp_path / "long.wav", noise(300), RATE)
    content = (tmp_path / "long.wav").read_bytes()
    process, address = started(bundle)
    found = [httpx.post(f"{address}/v1/jobs", content=content).json() for _ in range(6)]
    lines = []

    def follow():
        with httpx.stream("GET", f"{address}/v1/jobs/{found[-1]['id']}/events") as events:
            lines.extend(events.iter_lines())

    follower = threading.Thread(target=follow)
    follower.start()
    time.sleep(0.5)
    process.terminate()
    assert process.wait(20) == 0
    follower.join(20)
    assert lines and not follower.is_alive()
    process.stderr.close()


def test_killed_it_leaves_no_upload(bundle, song, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process, address = started(bundle)
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as upload:
        upload.sendall(b"POST /v1/tags HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        upload.sendall(bytes(3_000_000))
        time.sleep(0.3)
        process.kill()
        process.wait(20)
    process.stderr.close()
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_taken_and_a_short_token_are_one_line(bundle, tmp_path, command):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = command("serve", "--model", bundle, "--port", port)
        assert code == 2 and "nothing can listen there" in err
    (tmp_path / "token").write_text("short\n")
    code, _, err = command("serve", "--model", bundle, "--token-file", tmp_path / "token")
    assert code == 2 and "fewer than 16 characters" in err


def test_nothing_leaks_over_many_requests(client, song):
    rng, content = np.random.default_rng(0), song.read_bytes()

    def ask(number):
        if number % 3 == 0:
            spoiled = bytearray(content[:4000])
            for place in rng.integers(len(spoiled), size=20):
                spoiled[place] = rng.integers(256)
            return client.post("/v1/tags", content=bytes(spoiled)).status_code
        if number % 3 == 1:
            return client.post("/v1/tags", files={"file": ("a.wav", content[:9000])}).status_code
        return client.post("/v1/tags", content=content).status_code

    for number in range(30):
        ask(number)
    gc.collect()
    before = n_open("self"), threading.active_count()
    statuses = {ask(number) for number in range(150)}
    gc.collect()
    after = n_open("self"), threading.active_count()
    assert statuses <= {200, 422}
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 2


def test_a_client_that_goes_away_half_way_harms_no_other(bundle, song):
    process, address = started(bundle)
    host, port = address.removeprefix("http://").split(":")
    try:
        for _ in range(10):
            with socket.create_connection((host, int(port))) as upload:
                upload.sendall(
                    b"POST /v1/tags HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
                )
                upload.sendall(bytes(1000))
        answer = httpx.post(f"{address}/v1/tags", content=song.read_bytes(), timeout=30)
        assert answer.status_code == 200
        assert n_open(process.pid) < 40
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_client_that_sends_too_slowly_is_told_and_let_go(bundle):
    process, address = started(bundle, "--timeout", "0.5")
    host, port = address.removeprefix("http://").split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(b"POST /v1/tags HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\nRIFF")
            said = slow.recv(4096)
        assert b" 408 " in said.splitlines()[0]
        assert httpx.get(f"{address}/healthz").status_code == 200
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_the_description_has_examples(client):
    described = client.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    for name in ("Tags", "OneMessage", "Problem"):
        assert schemas[name]["example"], name
    assert described["paths"]["/v1/tags"]["post"]["requestBody"]["content"]


def test_a_full_disk_is_told_and_the_service_goes_on(client, song, monkeypatch):
    import tempfile

    def full():
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", full)
        answer = client.post("/v1/tags", content=song.read_bytes())
        refused(answer, 507, "no room", "No space left")
        assert "Retry-After" in answer.headers
    assert client.post("/v1/tags", content=song.read_bytes()).status_code == 200


# listen


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_wav_stream_on_standard_input_is_tagged_line_by_line(bundle, tmp_path, subtype):
    sf.write(tmp_path / "stream.wav", np.stack([noise(3), noise(3)], 1), RATE, subtype=subtype)
    content = bytearray((tmp_path / "stream.wav").read_bytes())
    # As a program writes it that does not know how long it will be.
    place = content.find(b"data") + 4
    content[place : place + 4] = b"\xff\xff\xff\xff"
    words = [sys.executable, "-m", "tagger", "listen", "-", "--model", bundle, "--top-k", "2"]
    done = subprocess.run(words, input=bytes(content), capture_output=True, cwd=ROOT)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0 and [line.split()[0] for line in lines] == ["1.0", "2.0", "3.0"]
    done = subprocess.run(words, input=b"no sound", capture_output=True, cwd=ROOT)
    assert done.returncode == 2 and b"is no WAV stream" in done.stderr


@pytest.mark.parametrize("block_seconds", [0.01, 0.25])
def test_a_wav_stream_is_resampled_as_a_whole_whatever_its_blocks(block_seconds):
    stream = io.BytesIO()
    sound = sine(1000, 3, rate=44_100)
    sf.write(stream, sound, 44_100, format="WAV", subtype="FLOAT")
    stream.seek(0)
    heard = np.concatenate(list(of_wav_stream(stream, RATE, block_seconds=block_seconds)))
    whole = resample(sound, 44_100, target_rate=RATE)
    assert abs(len(heard) - len(whole)) <= 1
    n_both = min(len(heard), len(whole))
    np.testing.assert_allclose(heard[:n_both], whole[:n_both], atol=1e-4)


def test_tokens_are_compared_in_constant_time():
    settings = ServeSettings(models=("a",), token=TOKEN)
    assert guards.is_token(f"Bearer {TOKEN}", settings) and not guards.is_token("", settings)
    assert "compare_digest" in Path(guards.__file__).read_text()
