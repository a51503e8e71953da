"""Errors in the words of each service, as clients meet them: their shapes differ, and quota hides in four statuses."""

from __future__ import annotations

import json
from http import HTTPStatus

__all__ = ["balancer_page", "error_body", "quota_refusal"]

# nova.api.openstack.wsgi.Fault, and Cinder's twin of it.
_NOVA_KEYS = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}
_MESSAGES = {
    "compute": {
        403: "Policy doesn't allow os_compute_api:servers:create to be performed.",
        404: "Instance could not be found",
        409: "Cannot 'stop' instance while it is in task_state powering-off",
        429: "This request was rate-limited.",
        500: (
            "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log "
            "if possible.\n<class 'oslo_db.exception.DBDeadlock'>"
        ),
    },
    "network": {
        403: "rule:create_port is disallowed by policy",
        404: "The resource could not be found.",
        409: "There are one or more ports still in use on the network.",
        500: "Request Failed: internal server error while processing your request.",
    },
    "volume": {
        403: "Policy doesn't allow volume:create to be performed.",
        404: "Volume could not be found.",
        409: "Invalid volume: Volume status must be available or error.",
        500: "The server has either erred or is incapable of performing the requested operation.",
    },
}
_NEUTRON_TYPES = {403: "PolicyNotAuthorized", 404: "HTTPNotFound", 409: "NetworkInUse", 429: "HTTPTooManyRequests"}


def error_body(service: str, status: int, message: str = "") -> tuple[str, bytes]:
    """Content type and body of an error from this service; ``message`` replaces its usual words."""
    phrase = HTTPStatus(status).phrase
    told = message or _MESSAGES.get(service, {}).get(status, phrase)
    if status == 401:
        # All services share a middleware, and its answer.
        told = message or "The request you have made requires authentication."
        return _json({"error": {"code": 401, "title": "Unauthorized", "message": told}})
    match service:
        case "compute" | "volume":
            return _json({_NOVA_KEYS.get(status, "computeFault"): {"code": status, "message": told}})
        case "network":
            kind = _NEUTRON_TYPES.get(status, "HTTPInternalServerError")
            return _json({"NeutronError": {"type": kind, "message": told, "detail": ""}})
        case "identity":
            return _json({"error": {"code": status, "title": phrase, "message": told}})
        case "placement":
            return _json({"errors": [{"status": status, "title": phrase, "detail": told}]})
    page = f"<html>\n <head>\n  <title>{status} {phrase}</title>\n </head>\n <body>\n  <h1>{status} {phrase}</h1>\n"
    return "text/html; charset=UTF-8", f"{page}  {told}<br /><br />\n\n\n </body>\n</html>".encode()


def quota_refusal(service: str) -> tuple[int, str, bytes]:
    """Status, content type and body with which this service says that a quota is used up."""
    match service:
        case "network":
            told = "Quota exceeded for resources: ['port']."
            return 409, *_json({"NeutronError": {"type": "OverQuota", "message": told, "detail": ""}})
        case "volume":
            told = (
                "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. "
                "Requested 20G, quota is 1000G and 990G has been consumed."
            )
            return 413, *_json({"overLimit": {"code": 413, "message": told, "retryAfter": "0"}})
        case "image":
            return 413, *error_body("image", 413, "The size of the data would exceed the project's image quota.")
    told = "Quota exceeded for cores: Requested 4, but already used 96 of 96 cores"
    return 403, *error_body(service, 403, told)


def balancer_page(status: int) -> tuple[str, bytes]:
    """Content type and body of the same status from the load balancer in front of a service: no JSON."""
    phrase = HTTPStatus(status).phrase
    return "text/html", f"<html><body><h1>{status} {phrase}</h1>\nSorry.\n</body></html>\n".encode()


def _json(content: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(content).encode()
