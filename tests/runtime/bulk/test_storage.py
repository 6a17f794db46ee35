"""Object stores: a server that speaks S3, and a file system of fsspec."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import pyarrow.parquet
import pytest

from poolc.errors import InputError, MissingDependency
from poolc.runtime.bulk import Columns
from poolc.runtime.bulk.commit import Commit
from poolc.runtime.engine import Engine
from tests.runtime.bulk.conftest import Embed, texts


class Bucket:
    """A bucket of the server, by pyarrow's own client."""

    def __init__(self, fs: Any, name: str) -> None:
        self.fs, self.name = fs, name

    def put(self, key: str, data: bytes) -> str:
        with self.fs.open_output_stream(f"{self.name}/{key}") as file:
            file.write(data)
        return f"s3://{self.name}/{key}"

    def get(self, key: str) -> bytes:
        with self.fs.open_input_stream(f"{self.name}/{key}") as file:
            return bytes(file.read())

    def names(self) -> list[str]:
        infos = self.fs.get_file_info(pyarrow.fs.FileSelector(self.name, recursive=True))
        files = [info.path for info in infos if info.type == pyarrow.fs.FileType.File]
        return sorted(path.removeprefix(f"{self.name}/") for path in files)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A server in this process, and where the libraries look for it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield pyarrow.fs.S3FileSystem(
            access_key="test",
            secret_key="test",
            region="us-east-1",
            scheme="http",
            endpoint_override=f"{host}:{port}",
            allow_bucket_creation=True,
        )
    server.stop()


@pytest.fixture
def bucket(s3: Any) -> Bucket:
    name = f"bucket-{uuid.uuid4().hex}"
    s3.create_dir(name)
    return Bucket(s3, name)


LINES = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts(12))).encode()


def test_object_to_object(bucket: Bucket, embed: Embed, embedder: Engine, tmp_path: Path) -> None:
    source = bucket.put("data/in.jsonl", LINES)
    result = embed(source, f"s3://{bucket.name}/out.parquet")
    assert bucket.names() == ["data/in.jsonl", "out.parquet"]
    (tmp_path / "in.jsonl").write_bytes(LINES)
    embed(tmp_path / "in.jsonl", tmp_path / "out.parquet")
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(bucket.get("out.parquet")))
    assert table.equals(pyarrow.parquet.read_table(tmp_path / "out.parquet"))
    assert result.meta["space_id"] == embedder.artifact.space_id


def test_prefix_and_glob(bucket: Bucket, embed: Embed, tmp_path: Path) -> None:
    for name, text in (("a.txt", "bread"), ("b.txt", "river"), ("c.jsonl", '{"text": "town"}')):
        bucket.put(f"data/{name}", text.encode())
    embed(f"s3://{bucket.name}/data/", tmp_path / "all.npy")
    embed(f"s3://{bucket.name}/data/*.txt", tmp_path / "some.npy")
    assert len(np.load(tmp_path / "all.npy")) == 3
    assert len(np.load(tmp_path / "some.npy")) == 2


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out/"])
def test_job_in_a_bucket_goes_on(
    bucket: Bucket, embed: Embed, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = bucket.put("in.jsonl", LINES.replace(b'"the"', b'""'))
    embed(source, f"s3://{bucket.name}/whole/{name}")
    expected = {k: bucket.get(k) for k in bucket.names() if k.startswith("whole/")}
    add = Commit.add

    def stop(self: Commit, answered: Any) -> Any:
        if answered.part.number == 2:
            raise KeyboardInterrupt
        return add(self, answered)

    monkeypatch.setattr(Commit, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        embed(source, f"s3://{bucket.name}/again/{name}")
    monkeypatch.undo()
    result = embed(source, f"s3://{bucket.name}/again/{name}")
    assert result.num_resumed == 10
    found = {k: bucket.get(k) for k in bucket.names() if k.startswith("again/")}
    assert {k.replace("again", "whole"): v for k, v in found.items()} == expected


def test_append_in_a_bucket(bucket: Bucket, embed: Embed) -> None:
    output = f"s3://{bucket.name}/out.jsonl"
    embed(bucket.put("a.txt", b"bread\nriver"), output)
    embed(bucket.put("b.txt", b"town"), output, append=True)
    lines = [json.loads(line) for line in bucket.get("out.jsonl").splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2]


def test_nothing_there(bucket: Bucket, embed: Embed, tmp_path: Path) -> None:
    for name in ("none.txt", "none/", "*.parquet"):
        with pytest.raises(InputError, match=r"there is nothing|no file of a known format"):
            embed(f"s3://{bucket.name}/{name}", tmp_path / "out.npy")
    with pytest.raises(InputError, match=r"cannot (read|open) s3://no-such-bucket"):
        embed("s3://no-such-bucket/in.txt", tmp_path / "out.npy")


def test_file_system_of_fsspec(embed: Embed, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/in/a.jsonl", LINES)
    embed("memory://in/a.jsonl", "memory://out/o.jsonl", columns=Columns(keep=("all",)))
    lines = [json.loads(line) for line in memory.cat("/out/o.jsonl").splitlines()]
    assert [line["text"] for line in lines] == texts(12)
    with pytest.raises(MissingDependency, match=r"gcsfs|adlfs"):
        embed("abfs://container/in.txt", tmp_path / "out.npy")
