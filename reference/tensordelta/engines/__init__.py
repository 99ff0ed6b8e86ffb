"""Driving inference servers over HTTP, so that they follow a chain: vLLM's and SGLang's.

    import tensordelta as td
    from tensordelta.engines import VllmServer, follow_server

    chain = td.open("hf://buckets/me/run")
    for served in follow_server(chain, VllmServer("http://localhost:8000", chain.address)):
        print(served.version, served.pause)

Only version numbers go over HTTP: the server's own processes read the chain, with `tensordelta.vllm` or
`tensordelta.sglang` in them. `tensordelta vllm-follow` and `tensordelta sglang-follow` do the same from a shell.
"""

from .drive import follow_server, update_servers
from .errors import ServerError, ServerSetupError, ServerUnavailableError
from .server import Served, Server
from .sglang import SglangServer
from .vllm import VllmServer

__all__ = [
    "Served",
    "Server",
    "ServerError",
    "ServerSetupError",
    "ServerUnavailableError",
    "SglangServer",
    "VllmServer",
    "follow_server",
    "update_servers",
]
