"""Requests to an application in this process, and what is taken from their replies."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx


def post(client: httpx.AsyncClient, path: str, **body: Any) -> httpx.Response:
    """Send JSON."""
    return asyncio.run(client.post(path, json=body))


def get(client: httpx.AsyncClient, path: str, **query: str) -> httpx.Response:
    """Ask without a body."""
    return asyncio.run(client.get(path, params=query))


def answer(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    """Send JSON and return the JSON of a reply that succeeded."""
    response = post(client, path, **body)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(client: httpx.AsyncClient, path: str, status: int = 400, **body: Any) -> Any:
    """Send JSON and return the JSON of a reply that refused it."""
    response = post(client, path, **body)
    assert response.status_code == status, response.text
    return response.json()
