"""Answers requests with a package: a script for a process of its own, which runs the package's copy of the code.

MLflow's own routes take arrays (`/invocations`, `/ping`, `/version`); `/files` takes a scanner's file and gives the
prediction's back.

Usage: python -P serve_package.py PACKAGE PARAMETERS SOCKET ADDRESS
"""

import asyncio
import json
import re
import socket
import sys
import tempfile
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import Any

#: Bytes of the largest file that is taken.
LARGEST = 8 << 30
#: Files that are taken at once: the next arrives while one is predicted, and no more fill the disk.
AT_ONCE = 2


def main(package: str, parameters: str, listening: str, address: str) -> None:
    """Serves until it is stopped."""
    import mlflow
    import uvicorn
    from mlflow.pyfunc import scoring_server

    # Puts the package's code before anything else that is installed under the same name.
    model = mlflow.pyfunc.load_model(package)
    app = scoring_server.init(model)
    try:
        add_files(app, Path(package), Path(parameters), address)
    except Exception as error:  # whatever an older condswin lacks
        print(f"{address}: its code takes no files, only arrays ({type(error).__name__}: {error})", file=sys.stderr)
    with socket.socket(fileno=int(listening)) as listener:
        if ip_address(listener.getsockname()[0]).is_loopback:
            refuse_browsers(app)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def refuse_browsers(app: Any) -> None:
    """Any page in a browser on this machine could ask what listens on loopback; programs send no `Origin`."""
    from fastapi import Request
    from fastapi.responses import JSONResponse

    @app.middleware("http")  # type: ignore[untyped-decorator]
    async def refuse(request: Request, go_on: Any) -> Any:
        if "origin" in request.headers:
            return JSONResponse({"error": "sent by a page in a browser, which has no business on loopback"}, 403)
        return await go_on(request)


def add_files(app: Any, package: Path, parameters: Path, address: str) -> None:
    """Adds the route for files: POST of a file's bytes, `?name=` its name, `&force=1` if it is unlike training data.

    Args:
        app: MLflow's.
        package: Its network answers.
        parameters: JSON; `predict` of the network's task is done with these.
        address: What to call the network.
    """
    from dataclasses import replace

    from fastapi import Request
    from fastapi.responses import JSONResponse, Response
    from starlette.concurrency import run_in_threadpool

    from condswin.config.reading import parse_config
    from condswin.errors import CondswinError
    from condswin.serving import serve

    config = parse_config(json.loads(parameters.read_text()), origin="parameters")
    served = serve(config, str(package / "artifacts/model"))
    served = served._replace(
        origin=replace(served.origin, attributes={**served.origin.attributes, "model": address}), model=address
    )
    one_at_a_time, places = threading.Lock(), asyncio.Semaphore(AT_ONCE)

    def predict(source: Path, out: Path, force: bool) -> tuple[Path, list[str]]:
        with one_at_a_time:
            served.refuse_kind(source)
            if reasons := [] if force else served.refusals(source):
                raise CondswinError(f"{source.name}: {'; '.join(reasons)}; &force=1 predicts it regardless")
            path, notes = served.predict(source, out)
        return path, notes

    async def files(request: Request, name: str, force: bool = False) -> Response:
        # A name decides the file's kind and, of fully sampled k-space, the mask; it is no path.
        if not re.fullmatch(r"[\w][\w.-]{0,200}", name, re.ASCII):
            return JSONResponse({"error": "name: letters, digits, '.', '_' and '-' only"}, 422)
        async with places:
            return await answer(request, name, force)

    async def answer(request: Request, name: str, force: bool) -> Response:
        with tempfile.TemporaryDirectory(prefix="condswin-serve-") as temporary:
            source, out = Path(temporary, "in", name), Path(temporary, "out")
            source.parent.mkdir()
            out.mkdir()
            size = 0
            with source.open("wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > LARGEST:
                        return JSONResponse({"error": f"{name}: more than {LARGEST} bytes"}, 413)
                    file.write(chunk)
            try:
                path, notes = await run_in_threadpool(predict, source, out, force)
            except CondswinError as error:
                return JSONResponse(
                    {"error": str(error).replace(f"{source.parent}/", "").replace(f"{temporary}/", "")}, 422
                )
            headers = {
                "Content-Disposition": f'attachment; filename="{path.name}"',
                "X-Condswin-Model": address,
                "X-Condswin-Notes": json.dumps(notes),
            }
            return Response(path.read_bytes(), media_type="application/octet-stream", headers=headers)

    app.add_api_route("/files", files, methods=["POST"])


if __name__ == "__main__":
    main(*sys.argv[1:])
