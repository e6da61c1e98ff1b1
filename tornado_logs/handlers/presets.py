"""The presets that may be started."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tornado_logs.handlers.base import BaseHandler

if TYPE_CHECKING:
    from tornado_logs.app import Services


async def described_presets(services: Services) -> list[dict[str, Any]]:
    """Each with its parameters; off the event loop, for it looks for the files to choose from."""
    presets = services.sources.presets()
    if not presets:
        return []
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, lambda: [preset.describe() for preset in presets])


class PresetsHandler(BaseHandler):
    """`GET /presets`."""

    async def get(self) -> None:
        """All presets, in the order of the config."""
        self.write_json({"presets": await described_presets(self.services)})
