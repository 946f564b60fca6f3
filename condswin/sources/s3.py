"""S3: what lies under a prefix, listed and fetched."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import S3DownloadFailedError, S3ValidationError

from condswin.errors import BadDataError, SourceError
from condswin.files import atomic_file
from condswin.sources.contents import DiffersError, Listed, compared_by

#: Seconds without a connection, and without a byte of an answer.
CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 30.0
#: How often boto3 sends a request, and its transfer manager asks for a piece whose stream broke off.
REQUESTS, STREAMS = 4, 3
#: How often an object is fetched that does not come as it is listed.
FETCHES = 2
SETTINGS = "check AWS_ENDPOINT_URL and the credentials in the environment"


class Prefix:
    """The objects under an `s3://bucket/prefix`.

    Endpoint and credentials come from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...), never from
    parameters. A server that says nothing ends a listing within three minutes, the fetching of an object within seven.

    Raises:
        BadDataError: From all methods: the server refuses, is not there, does not answer in time or lies. The message
            names bucket, key and reason. It holds no text of the server's, which may be anything.
    """

    def __init__(self, source: str) -> None:
        self.source = source.rstrip("/")
        self._bucket, _, prefix = source.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        if not self._bucket:
            raise BadDataError(f"{source}: names no bucket; write s3://bucket/prefix")
        if "@" in self._bucket:
            raise BadDataError("source: an s3:// address with credentials; set them in the environment instead")
        settings = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            retries={"mode": "standard", "total_max_attempts": REQUESTS},
            # Contents are compared here: botocore checks no object that comes in pieces, and takes the checksum of an
            # object for that of a piece from servers that send it (boto3#4512).
            response_checksum_validation="when_required",
        )
        try:
            # A session of its own: the default one keeps the credentials that it saw first.
            self._client = boto3.Session().client("s3", config=settings)
        except ValueError:
            raise BadDataError(f"{self.source}: AWS_ENDPOINT_URL is no address like https://host:port") from None
        except BotoCoreError as error:
            raise BadDataError(f"{self.source}: {_reason(error)}; {SETTINGS}") from None

    def url(self, key: str) -> str:
        """An object's address."""
        return f"s3://{self._bucket}/{key}"

    def objects(self) -> dict[str, Listed]:
        """The objects by their keys below the prefix, without markers of folders."""
        found = {}
        with _explained(self.source, f"check the name, {SETTINGS}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                # A login page that happens to be XML has none.
                if "Name" not in page:
                    raise ResponseParserError
                for entry in page.get("Contents", []):
                    key, size = entry.get("Key", ""), entry.get("Size", -1)
                    if size < 0 or not key.startswith(self._prefix):
                        raise ResponseParserError
                    if not (key.endswith("/") and size == 0):
                        listed = Listed(key, size, entry.get("ETag", "").strip('"'))
                        found[key.removeprefix(self._prefix)] = listed
        if not found:
            raise BadDataError(f"{self.source}: no objects under this prefix")
        return found

    def head(self, key: str, part: int | None = None) -> Mapping[str, Any]:
        """See `condswin.sources.contents.Server`."""
        arguments = {} if part is None else {"PartNumber": part}
        with _explained(self.url(key), "run again"):
            try:
                answer: Mapping[str, Any] = self._client.head_object(
                    Bucket=self._bucket, Key=key, ChecksumMode="ENABLED", **arguments
                )
            except ClientError:
                # Servers that know no parts refuse the number.
                if part is None:
                    raise
                return {}
        return answer

    def fetch(self, listed: Listed, target: Path) -> str:
        """Fetches an object, whole or not at all.

        Returns:
            What its content was compared by (`condswin.sources.contents.compared_by`).
        """
        url, reason = self.url(listed.key), ""
        for _ in range(FETCHES):
            try:
                with atomic_file(target) as temporary, _explained(url, "run again: what was fetched is kept"):
                    self._client.download_file(
                        self._bucket,
                        listed.key,
                        os.fspath(temporary),
                        Config=TransferConfig(num_download_attempts=STREAMS, preferred_transfer_client="classic"),
                    )
                    return compared_by(temporary, listed, self)
            except DiffersError as differs:
                reason = str(differs)
        raise SourceError(f"{url}: {reason}; run again, and ask who runs the server if it stays so")


@contextmanager
def _explained(where: str, mend: str) -> Iterator[None]:
    """Turns whatever boto3 raises into one line."""
    try:
        yield
    except BadDataError:
        raise
    except (BotoCoreError, Boto3Error, ClientError, *_REASONS, OSError) as error:
        raise SourceError(f"{where}: {_reason(error)}; {mend}") from None


_CUT = "the connection is cut"
_NOT_S3 = "the answer is not one of S3's, but perhaps a login page"
#: The first that fits holds.
_REASONS: dict[type[Exception], str] = {
    exceptions.ReadTimeoutError: "no answer in time",
    exceptions.ConnectTimeoutError: "no connection in time",
    TimeoutError: "no answer in time",
    exceptions.ProxyConnectionError: "no connection to the proxy",
    exceptions.SSLError: "no secure connection",
    exceptions.EndpointConnectionError: "no connection to the endpoint",
    exceptions.HTTPClientError: _CUT,
    exceptions.IncompleteReadError: _CUT,
    ConnectionError: _CUT,
    exceptions.NoCredentialsError: "no credentials",
    exceptions.PartialCredentialsError: "half of the credentials",
    exceptions.ParamValidationError: "no valid name of a bucket or object",
    ResponseParserError: _NOT_S3,
    ValueError: _NOT_S3,
    S3ValidationError: "other pieces come than were asked for",
    S3DownloadFailedError: "it changed while it was fetched",
}


def _reason(error: Exception) -> str:
    """Why a request failed, in words of ours: messages of libraries and servers may hold addresses and keys."""
    error = getattr(error, "last_exception", None) or error
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "?")
        return f"the server answers {code if re.fullmatch('[A-Za-z0-9.]{1,64}', code) else 'an error'} (HTTP {status})"
    known = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), None)
    if known is None and isinstance(error, OSError):
        return f"it cannot be stored ({error.strerror})"
    return known or f"boto3 ends in {type(error).__name__}"
