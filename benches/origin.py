"""A simulated Jelly for benchmarks: a corpus of files, a dump of webhook bodies that names them, and a private nginx
that answers `GET /api/attachments/ID` with a 302 to a signed link on another port, where the files are."""

import base64
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time

from servers import free_ports

TOKEN = "benchmark-token"
LINK_SECRET = "benchmark-link-secret"
LINK_EXPIRES = 4_102_444_800  # 2100-01-01: the signature is checked, the clock is not what is measured
# One nginx worker a core, as nginx itself chooses with `auto`, and two at most: more would only take the cores from
# the client.
NGINX_WORKERS = min(2, os.cpu_count() or 1)


class Workload:
    """What is downloaded: `ids` attachments over `contents` distinct files of `sizes` bytes (least, most)."""

    def __init__(self, name, title, ids, contents, sizes, target):
        self.name, self.title, self.ids, self.contents, self.sizes, self.target = (
            name, title, ids, contents, sizes, target)


WORKLOADS = {
    "a": Workload("a", "20,000 distinct files of 4 to 64 KiB", 20_000, 20_000, (4 << 10, 64 << 10), 1.5),
    "b": Workload("b", "10,000 ids over 1,000 contents of 100 KiB", 10_000, 1_000, (100 << 10, 100 << 10), 0.8),
}


class Corpus:
    """The files of a workload, and the attachments that stand for them. The same workload is always the same corpus."""

    def __init__(self, workload, folder):
        self.workload, self.folder = workload, folder
        self.files = folder / "files"
        self.files.mkdir(parents=True)
        chance = random.Random(f"jellyjar {workload.name}")
        pool = chance.randbytes(4 << 20)
        self.sizes = []
        for content in range(workload.contents):
            size = chance.randint(*workload.sizes)
            start = chance.randrange(len(pool) - size)
            path = self.files / f"{content % 256:02x}" / f"{content}.bin"
            path.parent.mkdir(exist_ok=True)
            # The number makes every file distinct.
            path.write_bytes(content.to_bytes(16, "big") + pool[start:start + size - 16])
            self.sizes.append(size)
        self.attachments = [self._attachment(number) for number in range(workload.ids)]
        self.bytes_of_ids = sum(self.sizes[content] for _, content in self.attachments)

    def _attachment(self, number):
        """An id of the form that Rails signs, and the content that it stands for."""
        value = json.dumps({"_rails": {"data": 10_000_000 + number, "pur": "blob_id"}}, separators=(",", ":"))
        digest = hashlib.sha1(f"{self.workload.name} {number}".encode()).hexdigest()
        return base64.b64encode(value.encode()).decode() + "--" + digest, number % self.workload.contents

    def path_of(self, content):
        """The path of a content on the storage server."""
        return f"/files/{content % 256:02x}/{content}.bin"

    def write_dump(self, path, base_url):
        """Writes one webhook body a line, each with one attachment."""
        with path.open("w") as dump:
            for number, (attachment_id, content) in enumerate(self.attachments):
                at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_767_225_600 + 60 * number))
                message = {
                    "id": f"m{number}", "conversation_id": f"c{number // 3}", "subject": f"Message {number}",
                    "inbound": True, "sent_at": at, "created_at": at,
                    "from": [f"person{number % 97}@customers.example"], "to": ["team@harbour.example"], "cc": [],
                    "text_body": "Please find the file attached.", "attachments_count": 1,
                    "attachments": [{
                        "id": attachment_id, "filename": f"file-{number}.bin",
                        "content_type": "application/octet-stream", "byte_size": self.sizes[content],
                        "inline": False, "url": f"{base_url}/attachments/{attachment_id}",
                    }],
                }
                conversation = {"id": f"c{number // 3}", "subject": f"Message {number}", "labels": [],
                                "mailboxes": [{"id": 1, "name": "Support"}]}
                body = {"event": "new_message", "created_at": at,
                        "data": {"message": message, "conversation": conversation, "is_new_conversation": False}}
                dump.write(json.dumps(body, separators=(",", ":")) + "\n")


class Origin:
    """A private nginx: the API on one port, the storage on another. A context manager."""

    def __init__(self, corpus, folder):
        self.folder = folder
        self.api_port, self.storage_port = free_ports(2)
        self.base_url = f"http://127.0.0.1:{self.api_port}/api"
        folder.mkdir(parents=True)
        (folder / "links.map").write_text("".join(self._link(corpus, *one) for one in corpus.attachments))
        (folder / "nginx.conf").write_text(self._configuration(corpus.folder))
        self.process = None

    def _link(self, corpus, attachment_id, content):
        """A line of the map from an id to its signed link, as ngx_http_secure_link_module checks it."""
        path = corpus.path_of(content)
        digest = hashlib.md5(f"{LINK_EXPIRES}{path} {LINK_SECRET}".encode()).digest()
        signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        link = f"http://127.0.0.1:{self.storage_port}{path}?expires={LINK_EXPIRES}&signature={signature}"
        return f'"/api/attachments/{attachment_id}" "{link}";\n'

    def _configuration(self, root):
        user = "user root;\n" if os.geteuid() == 0 else ""
        temporary = "".join(
            f"    {kind}_temp_path {self.folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return f"""{user}daemon off;
worker_processes {NGINX_WORKERS};
pid {self.folder}/nginx.pid;
error_log {self.folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
{temporary}    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 1h;
    keepalive_requests 100000000;
    default_type application/octet-stream;
    map_hash_max_size 262144;
    map_hash_bucket_size 1024;
    map $uri $link {{ include {self.folder}/links.map; }}
    map $http_authorization $refused {{ default 1; "Bearer {TOKEN}" 0; }}
    server {{
        listen 127.0.0.1:{self.api_port} backlog=1024;
        location /api/attachments/ {{
            default_type application/json;
            if ($refused) {{ return 401 '{{"error":"Invalid API token"}}'; }}
            if ($link = "") {{ return 404 '{{"error":"Resource not found"}}'; }}
            return 302 $link;
        }}
    }}
    server {{
        listen 127.0.0.1:{self.storage_port} backlog=1024;
        root {root};
        location /files/ {{
            # As S3: a request with a bearer token and a signature is refused.
            if ($http_authorization) {{ return 400; }}
            secure_link $arg_signature,$arg_expires;
            secure_link_md5 "$secure_link_expires$uri {LINK_SECRET}";
            if ($secure_link != "1") {{ return 403; }}
        }}
    }}
}}
"""

    def __enter__(self):
        nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
        if nginx is None:
            raise SystemExit("nginx is not installed (Debian: apt-get install nginx-light)")
        self.version = subprocess.run([nginx, "-v"], capture_output=True, text=True).stderr.strip()
        self.process = subprocess.Popen(
            [nginx, "-c", self.folder / "nginx.conf", "-e", self.folder / "error.log"], start_new_session=True)
        deadline = time.monotonic() + 10
        for port in (self.api_port, self.storage_port):
            while True:
                if self.process.poll() is not None:
                    raise SystemExit(f"nginx did not start: {(self.folder / 'error.log').read_text()}")
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise SystemExit("nginx does not listen after 10 s")
                    time.sleep(0.02)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=10)

    def errors(self):
        """What nginx complained of."""
        return (self.folder / "error.log").read_text()


def write_curl_configuration(corpus, base_url, path, output):
    """Writes the list of downloads that one curl process works through."""
    with path.open("w") as lines:
        for number, (attachment_id, _) in enumerate(corpus.attachments):
            lines.write(f'url = "{base_url}/attachments/{attachment_id}"\noutput = "{output / f"{number}.bin"}"\n')


def file_system_of(folder):
    """The type of the file system that holds `folder`."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True)
    return kind.stdout.strip() or "unknown"


def count_files(folder):
    """The number of files below `folder`, and their bytes."""
    count = size = 0
    for path, _, names in os.walk(folder):
        count += len(names)
        size += sum((pathlib.Path(path) / name).stat().st_size for name in names)
    return count, size
