import json
import pathlib

from ukbob_jax.store import schema


def test_each_array_is_one_shard_whose_chunks_tile(store):
    files = sorted(
        path.name
        for path in pathlib.Path(store.path, "subjects/sub-0/0001/image").rglob("*")
        if path.is_file()
    )
    assert files == ["0", "zarr.json"]
    assert schema.chunks((224, 168, 363)) == [32, 34, 33]
    for n in range(1, 400):
        chunk = schema.chunks((n,))[0]
        assert chunk <= 48 and -(-n // chunk) * chunk - n < chunk
    codecs = json.loads(pathlib.Path(store.path, "subjects/sub-0/0001/image/zarr.json").read_text())["codecs"]
    assert codecs[0]["configuration"]["chunk_shape"] == [40, 36, 33, 2]
