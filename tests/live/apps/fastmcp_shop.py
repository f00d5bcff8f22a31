"""An MCP server: over HTTP where a port is given, else over standard input and output."""

from __future__ import annotations

import os
import sys

import shop
from fastmcp import FastMCP

mcp: FastMCP[None] = FastMCP("shop")


@mcp.tool
def buy(item_id: str) -> str:
    """Buy an item."""
    shop.charge()
    return item_id


@mcp.tool
def boom() -> str:
    """Fail."""
    raise RuntimeError("boom")


@mcp.resource("shop://items/{item_id}")
def item(item_id: str) -> str:
    """Describe an item."""
    return item_id


@mcp.prompt
def recommend(taste: str) -> str:
    """Recommend something."""
    return taste


if __name__ == "__main__":
    if "stdio" in sys.argv:
        mcp.run(show_banner=False)
    else:
        mcp.run(
            "http",
            host=os.environ["HOST"],
            port=int(os.environ["PORT"]),
            stateless_http=True,
            json_response=True,
            show_banner=False,
        )
