"""Object stores and a PostgreSQL for tests and benchmarks: installs them, starts them on free ports, and stops them. Called by `run`,
which says what it is for; `benches/compare` imports it. Only Python's own library is needed."""

import argparse
import base64
import concurrent.futures
import contextlib
import email.utils
import fcntl
import hashlib
import hmac
import os
import pathlib
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
BUCKET = "test"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "jellyjar-test", "jellyjar-test-secret"
# Azurite's account is public knowledge: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
AZURITE = "azurite@3.35.0"  # 3.37 needs Node 22
AZURITE_BEFORE = "2026-11-01"  # nothing that it stands on may be younger
START_DEADLINE_SECONDS = 60


class Failure(Exception):
    """What a person must know; no trace of the stack helps them."""


def installed(name, pin, install):
    """The folder in which `install(folder)` has put what `pin` describes. Made once, also where several ask at once."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "jellyjar-tests")
    folder = cache / f"{name}-{hashlib.sha256(pin.encode()).hexdigest()[:12]}"
    complete = folder / "complete"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            print(f"== installing {name} into {folder}", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            complete.touch()
    return folder


def python_packages(name, requirements):
    """The folder of programs of a Python environment that holds what the file `requirements` lists."""
    def install(folder):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "--no-deps", "--requirement", requirements], check=True, stdout=sys.stderr)

    return installed(name, f"{sys.version} {requirements.read_text()}", install) / "bin"


def azurite_program():
    """The path of Azurite."""
    def install(folder):
        subprocess.run(["npm", "install", "--prefix", folder, "--loglevel=error", "--no-audit", "--no-fund", "--ignore-scripts",
                        f"--before={AZURITE_BEFORE}", AZURITE], check=True, stdout=sys.stderr)

    return installed("azurite", f"{AZURITE} {AZURITE_BEFORE}", install) / "node_modules/.bin/azurite-blob"


def free_ports(count):
    """Ports of loopback on which nobody listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Server:
    """A server in a process group of its own. A context manager: leaving it stops the server."""

    def __init__(self, folder):
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        self.log = self.folder / "log"
        self.process = None

    def start(self):
        """Starts it, without waiting until it answers."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=self.environment(), start_new_session=True)

    def environment(self):
        """Nothing of the caller's settings, and nothing written outside of its folder."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": str(self.folder)}

    def wait(self):
        """Waits until it has its bucket, which it only has when it answers."""
        deadline = time.monotonic() + START_DEADLINE_SECONDS
        while not self.has_bucket():
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} has no bucket after {START_DEADLINE_SECONDS} s:\n"
                              f"{self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    def has_bucket(self):
        """Whether the bucket is there; makes it where the server does not by itself."""
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.make_bucket(), timeout=5):
                return True
        except urllib.error.HTTPError as error:
            return error.code in self.ready
        except OSError:
            return False

    def __enter__(self):
        self.start()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Stops it and everything that it started. What it kept is thrown away: there is nothing to wait for."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Seaweedfs(Server):
    """SeaweedFS, all of it in one process."""

    name = "seaweedfs"
    ready = ()

    def __init__(self, folder):
        super().__init__(folder)
        names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc")]
        self.ports = dict(zip(names, free_ports(len(names))))
        self.url = f"http://127.0.0.1:{self.ports['s3.port']}"

    @staticmethod
    def program():
        return python_packages("seaweedfs-and-moto", HERE / "requirements.txt") / "weed"

    def environment(self):
        return super().environment() | {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}

    def command(self):
        return [self.program(), "mini", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                f"-bucket={BUCKET}", "-s3.autoCreateBucket=false", "-admin.ui=false", "-webdav=false",
                "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
                f"-filer.localSocket={self.folder}/filer.sock", f"-s3.localSocket={self.folder}/s3.sock",
                *(f"-{name}={port}" for name, port in self.ports.items())]

    def make_bucket(self):
        # It makes the bucket itself, last of all. The filer shows that to everybody; S3 only to who can sign.
        return urllib.request.Request(f"http://127.0.0.1:{self.ports['filer.port']}/buckets/{BUCKET}/")

    def variables(self):
        return {"JELLYJAR_TEST_S3_SEAWEEDFS": self.url, "JELLYJAR_TEST_S3_ACCESS_KEY_ID": ACCESS_KEY_ID,
                "JELLYJAR_TEST_S3_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}


class Moto(Server):
    """moto, which keeps everything in memory."""

    name = "moto"
    ready = (409,)

    def __init__(self, folder):
        super().__init__(folder)
        self.port, = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"

    @staticmethod
    def program():
        return python_packages("seaweedfs-and-moto", HERE / "requirements.txt") / "moto_server"

    def command(self):
        return [self.program(), "-H", "127.0.0.1", "-p", str(self.port)]

    def make_bucket(self):
        return urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")

    def variables(self):
        return {"JELLYJAR_TEST_S3_MOTO": self.url, "JELLYJAR_TEST_S3_ACCESS_KEY_ID": ACCESS_KEY_ID,
                "JELLYJAR_TEST_S3_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}


class Azurite(Server):
    """Azurite, Microsoft's own simulator."""

    name = "azurite"
    ready = (409,)

    def __init__(self, folder):
        super().__init__(folder)
        self.port, = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}/{AZURE_ACCOUNT}"

    @staticmethod
    def program():
        return azurite_program()

    def command(self):
        return [self.program(), "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", self.folder,
                "--silent", "--skipApiVersionCheck", "--disableTelemetry"]

    def make_bucket(self):
        headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        # https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key: eleven standard headers are
        # empty, and the account stands twice in the path of a simulator.
        said = "PUT" + "\n" * 12 + "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        said += f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{BUCKET}\nrestype:container"
        signature = hmac.digest(base64.b64decode(AZURE_KEY), said.encode(), "sha256")
        headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(signature).decode()}"
        return urllib.request.Request(f"{self.url}/{BUCKET}?restype=container", headers=headers, method="PUT")

    def variables(self):
        return {"JELLYJAR_TEST_AZURITE": self.url, "JELLYJAR_TEST_AZURE_ACCOUNT": AZURE_ACCOUNT,
                "JELLYJAR_TEST_AZURE_KEY": AZURE_KEY}


class Postgres(Server):
    """PostgreSQL, as the system has it. It has a cluster and a user of its own: no other cluster is touched."""

    name = "postgres"
    ROLE, PASSWORD = "jellyjar", "pg-canary-3f9a1c52e7"
    # A server that is killed loses nothing without fsync: only a machine that falls over would. Each test has a database of
    # its own, and making one syncs a thousand files.
    SETTINGS = f"""
listen_addresses = '127.0.0.1'
max_connections = 300
fsync = {os.environ.get("JELLYJAR_TEST_POSTGRES_FSYNC", "off")}
log_line_prefix = '%m [%p] %d '
"""

    def __init__(self, folder):
        self.user = self.unprivileged()
        self.own_parent = None
        if self.user and not all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents)):
            # The folder of root's own is closed to the server's user.
            folder = self.own_parent = pathlib.Path(tempfile.mkdtemp(prefix="jellyjar-postgres.", dir="/tmp"))
            folder.chmod(0o711)
        super().__init__(folder)
        if self.user:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        self.port, = free_ports(1)
        self.programs, self.data = self.program(), self.folder / "data"
        # Outside of what the server may write.
        self.control = folder / "postgres-control"

    @staticmethod
    def program():
        """The folder of the newest PostgreSQL's programs."""
        found = [path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")]
        if found:
            return max(found, key=lambda path: float(path.parent.name))
        elsewhere = shutil.which("initdb")
        if elsewhere is None:
            raise Failure("there is no PostgreSQL. Install it first, on Debian: sudo apt-get install postgresql")
        return pathlib.Path(elsewhere).resolve().parent

    @staticmethod
    def unprivileged():
        """Who runs the server in root's place, as it refuses root; nobody else where the caller is not root."""
        if os.geteuid() != 0:
            return None
        with contextlib.suppress(KeyError):
            return pwd.getpwnam("postgres")
        return pwd.getpwnam("nobody")

    def as_user(self, *command):
        """The same command for the server's user."""
        if self.user is None:
            return [str(word) for word in command]
        return ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups",
                *(str(word) for word in command)]

    def call(self, *command, told=None):
        """Runs a command that must succeed."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment(), input=told, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            log = self.log.read_text()[-3000:] if self.log.exists() else ""
            raise Failure(f"{shlex.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-3000:]}{log}")

    def start(self):
        # Where it is known, the collation is one of words, as most installations have it: nothing may rely on bytes' order.
        words = (["--locale-provider=icu", "--icu-locale=en-US"]
                 if self.programs.parent.name.isdigit() and int(self.programs.parent.name) >= 15 else [])
        self.call(*self.as_user(self.programs / "initdb", f"--pgdata={self.data}", "--username=postgres",
                                "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", *words, "--no-sync",
                                "--no-instructions"))
        (self.data / "pg_hba.conf").write_text("local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n")
        sockets = self.folder if len(str(self.folder)) < 80 else ""
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(f"{self.SETTINGS}port = {self.port}\nunix_socket_directories = '{sockets}'\n")
        # It may end the vacuum of a database that it drops.
        self.call(*self.as_user(self.programs / "postgres", "--single", "-D", self.data, "postgres"),
                  told=f"CREATE ROLE {self.ROLE} LOGIN CREATEDB PASSWORD '{self.PASSWORD}' IN ROLE pg_signal_backend\n")
        environment = ["env", "-i", *(f"{name}={value}" for name, value in self.environment().items())]
        pg_ctl = shlex.join([*environment, *self.as_user(self.programs / "pg_ctl", "-s", "-w", "-t", START_DEADLINE_SECONDS,
                                                         "-D", self.data, "-l", self.log)])
        self.control.write_text(f"""#!/bin/sh
# Stops and starts the PostgreSQL of the tests, as crashes and operators do; waits until it has happened.
cd {shlex.quote(str(self.folder))} || exit
case "$1" in
  start) exec {pg_ctl} start ;;
  stop-immediate) exec {pg_ctl} -m immediate stop ;;
  restart-immediate) exec {pg_ctl} -m immediate restart ;;
  *) echo "usage: $0 start | stop-immediate | restart-immediate" >&2; exit 2 ;;
esac
""")
        self.control.chmod(0o755)
        # Its output goes nowhere: a pipe would stay open as long as the server runs.
        subprocess.run([self.control, "start"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)

    def wait(self):
        url = self.variables()["JELLYJAR_TEST_POSTGRES"]
        self.call(self.programs / "psql", url, "-X", "-q", "-t", "-c", "SELECT 1")

    def stop(self):
        # A test may have left it stopped.
        if (self.data / "postmaster.pid").exists():
            subprocess.run([self.control, "stop-immediate"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        if self.own_parent is not None:
            shutil.rmtree(self.own_parent, ignore_errors=True)

    def variables(self):
        return {"JELLYJAR_TEST_POSTGRES": f"postgres://{self.ROLE}:{self.PASSWORD}@127.0.0.1:{self.port}/postgres",
                "JELLYJAR_TEST_POSTGRES_CONTROL": str(self.control)}


SERVERS = {server.name: server for server in (Seaweedfs, Moto, Azurite, Postgres)}


def ended(signal_number, _):
    """SIGINT and SIGTERM unwind the stack, so that everything is stopped on the way out."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    raise SystemExit(128 + signal_number)


def run(names, command):
    """Runs a command with servers beside it; gives its exit status."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="jellyjar-servers."))
        folder.chmod(0o711)  # some server's user may be another
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor() as threads:
            list(threads.map(lambda name: SERVERS[name].program(), names))
        servers = [SERVERS[name](folder) for name in names]
        for server in servers:
            stack.callback(server.stop)
            server.start()
        for server in servers:
            server.wait()
        print(f"== {', '.join(names)} up after {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        environment = dict(os.environ)
        for server in servers:
            environment |= server.variables()
        child = subprocess.Popen(command, env=environment)
        try:
            return child.wait()
        except SystemExit:
            # Whoever pressed Ctrl-C has told the child too; whoever sent SIGTERM may not have.
            child.terminate()
            child.wait()
            raise


def main():
    parser = argparse.ArgumentParser(prog="tests/servers/run", description="Runs a command with servers beside it.")
    parser.add_argument("--only", metavar="NAME[,NAME]", default=",".join(SERVERS), help=f"of {', '.join(SERVERS)}")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="the command, after --")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    unknown = [name for name in names if name not in SERVERS]
    if unknown:
        parser.error(f"there is no server {unknown[0]!r}; there are {', '.join(SERVERS)}")
    signal.signal(signal.SIGINT, ended)
    signal.signal(signal.SIGTERM, ended)
    try:
        status = run(names, arguments.command)
    except (Failure, subprocess.CalledProcessError, OSError) as failure:
        print(f"tests/servers: {failure}", file=sys.stderr)
        return 2
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
