"""/info and /healthcheck: what this Swift can do, for clients that ask first.  Nothing is advertised that is not there.  Pure."""

from __future__ import annotations

import msgspec

from proxy.gates.limits import Limits
from proxy.swift.parse import META_VALUE_BYTES_MAX
from ring.names import NAME_BYTES_MAX
from ring.wire.message import Headers, Response

RELEASE = "2.38.0"  # of Swift, whose behaviour this follows; some clients compare it


def info(limits: Limits, policies: tuple[str, ...], default_policy: int = 0) -> Response:
    document = {
        "swift": {
            "version": RELEASE,
            "max_file_size": limits.object_bytes_max,
            "max_meta_name_length": limits.metadata_name_bytes_max,
            "max_meta_value_length": META_VALUE_BYTES_MAX,
            "max_meta_count": limits.metadata_count_max,
            "max_meta_overall_size": limits.metadata_bytes_max,
            "max_header_size": 8192,
            "max_account_name_length": NAME_BYTES_MAX["account"],
            "max_container_name_length": NAME_BYTES_MAX["container"],
            "max_object_name_length": NAME_BYTES_MAX["object"],
            "account_listing_limit": limits.listing_max,
            "container_listing_limit": limits.listing_max,
            "extra_header_count": 0,
            "strict_cors_mode": True,
            "allow_account_management": False,
            "account_autocreate": True,
            "policies": [
                {"name": name, "aliases": name, **({"default": True} if at == default_policy else {})}
                for at, name in enumerate(policies)
            ],
        },
        "bulk_delete": {"max_deletes_per_request": 10_000, "max_failed_deletes": 10_000},
        "s3api": {
            "max_bucket_listing": 1000,
            "max_parts_listing": 1000,
            "max_upload_part_num": limits.part_number_max,
            "max_multi_delete_objects": 1000,
            "min_segment_size": limits.part_bytes_min,
            "allow_multipart_uploads": True,
            "s3_acl": False,
        },
    }
    return Response(200, Headers([("content-type", "application/json; charset=UTF-8")]), msgspec.json.encode(document))


def health() -> Response:
    return Response(200, Headers([("content-type", "text/plain")]), b"OK")
