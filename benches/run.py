"""How `benches/compare` runs a program once, and what it demands of the run."""

import json
import os
import subprocess
import threading
import time

from origin import TOKEN


def measured(command, environment=None, after=None, log=None):
    """Runs a command, and then `after`, to their ends; gives wall time, CPU time, peak memory and standard output.
    The peak is the kernel's own (VmHWM), read every 20 ms: it only grows."""
    peak = [0]
    with open(log or os.devnull, "wb") as errors:
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors)

        def watch():
            while True:
                try:
                    with open(f"/proc/{process.pid}/status") as status:
                        peak[0] = max([peak[0]] + [int(line.split()[1]) for line in status if line.startswith("VmHWM")])
                except OSError:
                    return
                time.sleep(0.02)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if after is not None:
            subprocess.run(after, check=True)
        elapsed = time.monotonic() - started
        watcher.join()
    return {"seconds": round(elapsed, 3), "user_seconds": round(usage.ru_utime, 3),
            "system_seconds": round(usage.ru_stime, 3), "peak_mib": round(peak[0] / 1024, 1),
            "exit_code": process.returncode}, output


def require(condition, what):
    """Ends the comparison where a run did not do its work: a fast failure is no result."""
    if not condition:
        raise SystemExit(f"compare: {what}")


def jellyjar_environment(origin):
    """The environment of jellyjar, into which nothing of the caller's own settings may leak."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JELLY", "RUST_LOG", "AWS_"))}
    return kept | {"JELLY_API_URL": origin.base_url, "JELLY_API_TOKEN": TOKEN}


def require_receipt(corpus, result, output, log):
    """Ends the comparison unless jellyjar's receipt tells exactly what was to be done."""
    require(result["exit_code"] == 0, f"jellyjar failed: {output.decode()} {log.read_text()[-2000:]}")
    receipt = json.loads(output)
    ids, contents = corpus.workload.ids, corpus.workload.contents
    expected = {"ok": True, "archived": ids, "attachments": ids, "duplicates": ids - contents, "api_requests": ids,
                "bytes_fetched": corpus.bytes_of_ids, "bytes_stored": sum(corpus.sizes)}
    wrong = {key: receipt[key] for key, value in expected.items() if receipt[key] != value}
    require(not wrong, f"jellyjar's receipt is off: {wrong} instead of {expected}")
