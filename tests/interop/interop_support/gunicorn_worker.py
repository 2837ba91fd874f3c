"""The gunicorn worker a user of the loop would write: uvicorn's, with the loop named."""

from __future__ import annotations

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

from interop_support.loops import factory_path


class LoopUnderTestWorker(UvicornWorker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": factory_path(), "http": "auto"}
