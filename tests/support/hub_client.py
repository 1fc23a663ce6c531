"""Steps of the unmodified Hub client, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

from support.hub_server import HubServer

NET = "someone/net"
# Runs steps by name, and collects the result or the error of each.
CLIENT = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

api, told = HfApi(), {}
stranger = HfApi(token="hf_stranger")
nobody = HfApi(token=False)

def tell(name, step):
    try:
        told[name] = step()
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        told[name] = f"{type(error).__name__} {status} {error}"

def read(path):
    return Path(path).read_bytes().hex()

def together(**steps):
    with ThreadPoolExecutor(8) as pool:
        for name, step in steps.items():
            pool.submit(tell, name, step)

def publish(repo, folder=sys.argv[1]):
    api.create_repo(repo, exist_ok=True)
    return api.upload_folder(repo_id=repo, folder_path=folder).oid
"""
TELL = "\nprint(json.dumps(told, default=str))"


def tell(hub: HubServer, steps: str, *arguments: Path, home: Path, **options: str) -> dict:
    return json.loads(hub.run(CLIENT + steps + TELL, *arguments, home=home, **options).splitlines()[-1])
