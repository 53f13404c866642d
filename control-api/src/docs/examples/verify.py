import base64, hashlib, hmac


def verify(secrets, headers, body, now):
    """Whether the gateway sent this. secrets: those of the listing; headers: by lower-case name;
    body: the raw bytes; now: Unix seconds."""
    field = lambda name: headers.get("x-crochet-" + name, "")
    try:
        if abs(now - int(field("timestamp"))) > 300:
            return False
    except ValueError:
        return False
    covered = ".".join([
        "v2", field("request-id"), field("timestamp"), field("listing-id"), field("buyer-id"),
        field("attempt"), field("charged-micros"), hashlib.sha256(body).hexdigest(),
    ])
    given = field("signature").encode().split(b" ")
    for secret in secrets:
        if not secret.startswith("whsec_"):
            continue
        key = base64.b64decode(secret.removeprefix("whsec_"))
        tag = b"v2," + base64.b64encode(hmac.digest(key, covered.encode(), "sha256"))
        if any(hmac.compare_digest(tag, one) for one in given):
            return True
    return False
