"""The script that a competent person would write to save the attachments of a dump in a bucket: aiohttp and aioboto3
on uvloop, 32 downloads at once, connections kept alive. Each id is exchanged for its link, the link is fetched and
hashed on the way, and the bytes are put under their SHA-256 unless they are there. It keeps no journal, and knows what
it stored before only while it runs. `benches/compare --s3` measures jellyjar against it.

    s3_script.py save DUMP BUCKET PREFIX      API_URL and API_TOKEN in the environment, and the usual AWS_ variables
    s3_script.py count BUCKET PREFIX          prints how many objects there are, and their bytes
"""

import asyncio
import base64
import hashlib
import json
import os
import sys

import aioboto3
import aiohttp
import uvloop
from botocore.config import Config
from botocore.exceptions import ClientError

CONCURRENCY = 32


def attachments_of(dump):
    """The ids of all attachments in a dump of webhook bodies."""
    with open(dump) as lines:
        for line in lines:
            for attachment in json.loads(line)["data"]["message"]["attachments"]:
                if not attachment.get("inline"):
                    yield attachment["id"]


async def save_one(attachment_id, api, storage, s3, bucket, prefix, stored):
    """Downloads one attachment and stores it; gives its size."""
    url = f"{os.environ['API_URL']}/attachments/{attachment_id}"
    async with api.get(url, allow_redirects=False) as answer:
        if answer.status != 302:
            raise RuntimeError(f"{attachment_id}: the API answered {answer.status}")
        link = answer.headers["Location"]
    digest, body = hashlib.sha256(), bytearray()
    async with storage.get(link) as answer:
        answer.raise_for_status()
        async for chunk in answer.content.iter_any():
            digest.update(chunk)
            body += chunk
        if answer.content_length is not None and len(body) != answer.content_length:
            raise RuntimeError(f"{attachment_id}: {len(body)} bytes instead of {answer.content_length}")
    name = digest.hexdigest()
    if name not in stored:
        stored.add(name)
        try:
            await s3.put_object(Bucket=bucket, Key=f"{prefix}/{name[:2]}/{name}", Body=bytes(body), IfNoneMatch="*",
                                ChecksumSHA256=base64.b64encode(digest.digest()).decode())
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
    return len(body)


def s3_client():
    """A client with a connection for each download."""
    return aioboto3.Session().client("s3", config=Config(
        max_pool_connections=CONCURRENCY, s3={"addressing_style": "path"},
        request_checksum_calculation="when_required"))


async def save(dump, bucket, prefix):
    """Saves everything that a dump names."""
    ids, stored, size = iter(list(attachments_of(dump))), set(), 0
    authorization = {"Authorization": f"Bearer {os.environ['API_TOKEN']}"}
    connections = lambda: aiohttp.TCPConnector(limit=CONCURRENCY)  # noqa: E731
    async with (aiohttp.ClientSession(headers=authorization, connector=connections()) as api,
                aiohttp.ClientSession(connector=connections()) as storage, s3_client() as s3):
        async def work():
            nonlocal size
            for attachment_id in ids:
                saved = await save_one(attachment_id, api, storage, s3, bucket, prefix, stored)
                size += saved

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONCURRENCY):
                tasks.create_task(work())
    print(json.dumps({"contents": len(stored), "bytes": size}))


async def count(bucket, prefix):
    """Counts what is below a prefix."""
    objects = size = 0
    async with s3_client() as s3:
        async for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
            for one in page.get("Contents", []):
                objects, size = objects + 1, size + one["Size"]
    print(json.dumps({"objects": objects, "bytes": size}))


if __name__ == "__main__":
    uvloop.run({"save": save, "count": count}[sys.argv[1]](*sys.argv[2:]))
