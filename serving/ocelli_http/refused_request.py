"""What the HTTP parser refuses: the status and the sentence of the answer."""

from __future__ import annotations

from http import HTTPStatus

import httptools

_OVERFLOWS = ("Content-Length overflow", "Chunk size overflow")
"""The parser's errors for a number that does not fit into 64 bits."""
_FRAMING_HEADERS = ("Content-Length", "Transfer-Encoding")


def describe_parse_error(error: BaseException | None, *, reads_head: bool) -> tuple[HTTPStatus, str]:
    """Status and sentence for an error of the parser; `reads_head`: it was reading a request's first line or headers."""
    fact = str(error)
    if fact in _OVERFLOWS:
        return (
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "The declared length of the request body is too large; send a shorter body.",
        )
    if any(name in fact for name in _FRAMING_HEADERS):
        return HTTPStatus.BAD_REQUEST, (
            "The headers Content-Length and Transfer-Encoding do not define where the body ends; send one of them once: "
            "a number of bytes, or chunked."
        )
    # The only callback that can fail is uvicorn's for the end of the head, if it cannot parse the address.
    if isinstance(error, httptools.HttpParserInvalidURLError | httptools.HttpParserCallbackError):
        return HTTPStatus.BAD_REQUEST, (
            "The address in the request's first line is not valid; send a path that begins with / and percent-encode all but "
            "letters, digits and common punctuation."
        )
    if reads_head:
        return HTTPStatus.BAD_REQUEST, (
            "The request's first line or one of its headers is not valid HTTP; send METHOD ADDRESS HTTP/1.1, and each header "
            "on its own line as NAME: VALUE."
        )
    return HTTPStatus.BAD_REQUEST, (
        "The chunks of the request body are not valid HTTP; send each as its length in hexadecimal digits, its bytes, and a "
        "line end after both."
    )
