"""A store in a bucket, by the code that writes to a disk; the bucket is a small server with Google's interface."""

import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse

import pytest

from tests.conftest import ROOT


class Bucket(http.server.BaseHTTPRequestHandler):
    """Objects by name with a generation number each: what TensorStore asks of Google Cloud Storage."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[int, bytes]]
    generation = 0

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def asked(self) -> tuple[str, dict[str, str]]:
        """Object name ("" for the list) and query."""
        url = urllib.parse.urlsplit(self.path)
        _, _, name = url.path.partition("/b/bucket/o")
        return urllib.parse.unquote(name.removeprefix("/")), dict(urllib.parse.parse_qsl(url.query))

    def unwanted(self, name: str, query: dict[str, str]) -> bool:
        """Whether a condition on the generation fails; 0 stands for no object."""
        there = str(self.objects.get(name, (0, b""))[0])
        return query.get("ifGenerationMatch", there) != there

    def do_GET(self) -> None:
        name, query = self.asked()
        if not name:
            low, high = query.get("startOffset", ""), query.get("endOffset", "\U0010ffff")
            prefix = query.get("prefix", "")
            names = [n for n in sorted(self.objects) if low <= n < high and n.startswith(prefix)]
            items = [
                {"name": n, "generation": str(self.objects[n][0]), "size": str(len(self.objects[n][1]))}
                for n in names
            ]
            return self.answer(200, json.dumps({"items": items}).encode(), Content_Type="application/json")
        if name not in self.objects:
            return self.answer(404)
        generation, data = self.objects[name]
        headers = {"x_goog_generation": str(generation), "Cache_Control": "no-cache"}
        if asked := self.headers.get("Range"):
            low, _, high = asked.removeprefix("bytes=").partition("-")
            start = int(low) if low else len(data) - int(high)
            end = min(int(high), len(data) - 1) if low and high else len(data) - 1
            span = f"bytes {start}-{end}/{len(data)}"
            return self.answer(206, data[start : end + 1], Content_Range=span, **headers)
        return self.answer(200, data, **headers)

    def do_POST(self) -> None:
        _, query = self.asked()
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.unwanted(query["name"], query):
            return self.answer(412)
        Bucket.generation += 1
        self.objects[query["name"]] = Bucket.generation, data
        told = {"name": query["name"], "generation": str(Bucket.generation), "size": str(len(data))}
        return self.answer(200, json.dumps(told).encode(), Content_Type="application/json")

    def do_DELETE(self) -> None:
        name, query = self.asked()
        if self.unwanted(name, query):
            return self.answer(412)
        return self.answer(204 if self.objects.pop(name, None) else 404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bucket():
    """Objects, and the address of the server that keeps them."""
    Bucket.objects = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Bucket.objects, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


CLIENT = """
import sys
import numpy as np
from tests.store.conftest import AFFINE, volume
from ukbob_jax.store.reader import Store, verify
from ukbob_jax.store.writer import StoreWriter

path = sys.argv[1]
with StoreWriter(path) as writer:
    for seed in range(2):
        image, label = volume(seed)
        writer.write(f"s{seed}", image, AFFINE, {"auto": label}, source=str(seed), split="train")
image, label = volume(7)
with StoreWriter(path) as writer:
    assert writer.has("s0", "0") and not writer.has("s1", "7")
    writer.write("s1", image, AFFINE, {"auto": label}, source="7", split="train")
store = Store.open(path)
assert store.split("train") == ("s0", "s1")
np.testing.assert_array_equal(store.read("s1", "image"), image)
np.testing.assert_array_equal(store.crop("s1", "label/auto", (3, 4, 5), (9, 8, 7)), label[3:12, 4:12, 5:12])
out = np.zeros((9, 8, 7, 2), np.int16)
store.fetch("s0", "image", (1, 2, 3), out)()
np.testing.assert_array_equal(out, volume(0)[0][1:10, 2:10, 3:10])
assert set(store.samples("s0", "auto")) == {1, 2, 3, 4} and verify(path) == {}
"""


def test_a_store_in_a_bucket_is_written_replaced_read_and_verified(bucket):
    objects, address = bucket
    environment = {**os.environ, "TENSORSTORE_GCS_HTTP_URL": address, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none"}
    command = [sys.executable, "-c", CLIENT, "gs://bucket/deep/store"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {"deep/store/store.json", "deep/store/manifest.jsonl"} <= set(objects)
    assert not [name for name in objects if "/s1/0001/" in name]  # the replaced one is swept
    assert [name for name in objects if "/s1/0002/image/" in name]


def test_a_store_may_be_named_by_a_file_url(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, f"file://{tmp_path}/store"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "store" / "manifest.jsonl").is_file()
